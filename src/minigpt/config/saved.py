"""A run's saved configuration: data that may come from anybody, read and checked before anything is built from it."""

from pathlib import Path

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from minigpt.config.errors import ConfigError
from minigpt.config.packaged import components, leaves, packaged_targets, typed_targets


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


def check_targets(path: Path, saved: DictConfig) -> None:
    """Raises ConfigError where a saved configuration names a component that neither conf/ nor this command line has."""
    allowed = packaged_targets() | typed_targets()
    for place, node in components(OmegaConf.to_container(saved, resolve=False)):
        if node["_target_"] not in allowed:
            raise ConfigError(
                f"{path} names {place}._target_={node['_target_']}, which no file in conf/ has: if you trust it, "
                f"name it on this command line too, by the option or --config-dir that the run was started with"
            )


def read_saved(path: Path) -> DictConfig:
    """A run's saved configuration, as the plain data that it is: it may be anybody's.

    Raises:
        ConfigError: the file is damaged, or has more in it than values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "${" in text:  # would read this machine's environment
            raise ConfigError(f"{path} refers to other values; a saved configuration holds values alone")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError(f"{path} has YAML aliases, which can make a small file very large")
        saved = OmegaConf.create(yaml.safe_load(text) or {})
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(saved, DictConfig):
        raise ConfigError(f"{path} is not a configuration")
    return saved


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
