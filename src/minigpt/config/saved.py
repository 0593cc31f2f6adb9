"""A run's saved configuration: data that may come from anybody, read and checked before anything is built from it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from minigpt.config.errors import ConfigError
from minigpt.config.packaged import components, entries, leaves, packaged_places, place_of, typed_targets
from minigpt.runs.untrusted import check_mapping, read_yaml

KEY = re.compile(r"[\w/-]{1,100}")


def merge_saved(path: Path, composed: DictConfig, known: list[str]) -> DictConfig:
    """The saved configuration of a run, with this command line's options on top.

    Args:
        path: the run's config.yaml.
        composed: this command line's own configuration, which says where to read, write and download.
        known: the options that the run was started with; repeating one changes nothing.

    Raises:
        ConfigError: the file cannot be used, or an option would choose another component than the run has.
    """
    saved = read_saved(path)
    check_targets(path, saved)
    keep_own_places(saved, composed)
    with open_dict(saved):
        saved.quiet = composed.quiet
    hydra = HydraConfig.get()
    for override in OverridesParser.create().parse_overrides(list(hydra.overrides.task)):
        key = override.key_or_group
        if key in hydra.runtime.choices:
            if override.input_line in known:
                continue
            raise ConfigError(
                f"resume continues a run with its own {key}: leave {override.input_line} out, or start a new run"
            )
        with open_dict(saved):
            OmegaConf.update(saved, key, override.value(), force_add=True)
    return saved


def check_targets(path: Path | str, saved: DictConfig) -> None:
    """Raises ConfigError where a saved configuration names a component that conf/ does not have in that place, nor this
    command line in any.
    """
    allowed, typed = packaged_places(), typed_targets()
    for place, node in components(OmegaConf.to_container(saved, resolve=False)):
        target = node["_target_"]
        if not isinstance(target, str) or ((place_of(place), target) not in allowed and target not in typed):
            raise ConfigError(
                f"{path} names {place}._target_={target}, which no file in conf/ has there: if you trust it, "
                f"name it on this command line too, by the option or --config-dir that the run was started with"
            )


def read_saved(path: Path) -> DictConfig:
    """A run's saved configuration, as the plain data that it is: it may be anybody's.

    Raises:
        ValueError: the file is damaged, or has more in it than values.
    """
    saved = check_mapping(read_yaml(path), path)
    check_values(path, saved)
    return OmegaConf.create(saved)


def check_saved(source: str, saved: DictConfig) -> None:
    """Raises ConfigError for components of a file by anybody that a configuration of this command may not have."""
    check_values(source, OmegaConf.to_container(saved, resolve=False))
    check_targets(source, saved)


def check_values(path: Path | str, saved: Any) -> None:
    """Raises ConfigError where nested plain data has references, or keys that are no options."""
    for place, value in leaves(saved):
        if isinstance(value, str) and "${" in value:  # would read this machine's environment
            raise ConfigError(f"{path} refers to other values at {place}; a saved configuration holds values alone")
    for key in keys(saved):
        if not KEY.fullmatch(key) or (key.startswith("_") and key not in ("_target_", "_partial_")):
            raise ConfigError(f"{path} is damaged: {key!r} is not an option")


def keys(node: Any) -> Iterator[str]:
    """Every key in nested plain data."""
    if isinstance(node, Mapping):
        yield from node
    for _, value in entries(node):
        yield from keys(value)


def keep_own_places(saved: DictConfig, composed: DictConfig) -> None:
    """Where to read, write and download is this command's choice, not the saved file's.

    Raises:
        ConfigError: the saved file names a folder that this command has no own choice for.
    """
    own = {}
    for path, value in leaves(OmegaConf.to_container(composed, resolve=False)):
        if isinstance(value, str) and "${paths." in value:
            own[path.rpartition(".")[2]] = value
    saved.paths = composed.paths
    for path, value in list(leaves(OmegaConf.to_container(saved, resolve=False))):
        name = path.rpartition(".")[2]
        if name.endswith("dir") and not path.startswith("paths."):
            if name not in own:
                raise ConfigError(f"{path}={value} of the saved configuration is not honoured: set it here, or drop it")
            OmegaConf.update(saved, path, own[name])
        elif name == "url" and value not in (None, OmegaConf.select(composed, path)):
            OmegaConf.update(saved, path, None)
