"""The packaged configuration in conf/, and which components a command may build.

Whoever types a command may run anything anyway, so what is typed is trusted: options, and the files of `--config-dir`
and `--config-path`. What is read from a run directory or a checkpoint is not: it may name the components of conf/ and
those typed on the same command line, and no others.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

PACKAGED = Path(__file__).parents[1] / "conf"  # where a wheel has it
CONF = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "conf"


def config_groups(command: str | None = None) -> dict[str, list[str]]:
    """The groups of conf/, such as `model/attention`, and the choices of each; only those of one command if named."""
    groups: dict[str, list[str]] = {}
    for file in sorted(CONF.rglob("*.yaml")):
        group, name = file.relative_to(CONF).parent, file.stem
        if group.parts[:1] == ("experiment",):  # one group, whatever folder a file lies in
            group, name = Path("experiment"), file.relative_to(CONF / "experiment").with_suffix("").as_posix()
        if group.parts and not name.startswith("_"):  # those are only included by others
            groups.setdefault(group.as_posix(), []).append(name)
    if command is None:
        return groups
    defaults = yaml.safe_load((CONF / f"{command}.yaml").read_text("utf-8"))["defaults"]
    own = {str(key) for entry in defaults if isinstance(entry, Mapping) for key in entry} - {"hydra"}
    return {group: choices for group, choices in groups.items() if group.partition("/")[0] in own}


@functools.cache
def packaged_targets() -> frozenset[str]:
    """Every `_target_` in conf/, but those of Hydra itself."""
    return frozenset(target for _, target in packaged_places())


@functools.cache
def packaged_places() -> frozenset[tuple[str, str]]:
    """Every `_target_` in conf/ with the dotted path that it has in a configuration, see `place_of`."""
    found = set()
    for file in CONF.rglob("*.yaml"):
        group = file.relative_to(CONF).parent
        if "hydra" not in group.parts:
            node = yaml.safe_load(file.read_text("utf-8"))
            package = "" if "@package _global_" in file.read_text("utf-8") else ".".join(group.parts)
            found |= {(place_of(path), str(each["_target_"])) for path, each in components(node, package)}
            # `attention@encoder_attention` puts a choice of one group in another place too.
            for entry in node.get("defaults", []) if isinstance(node, Mapping) else ():
                source, _, name = str(next(iter(entry))).partition("@") if isinstance(entry, Mapping) else ("", "", "")
                for choice in (CONF / group / source).glob("*.yaml") if name else ():
                    found |= {(f"{package}.{name}", target) for target in file_targets(choice)}
    return frozenset(found)


def place_of(path: str) -> str:
    """The path of a component, with `*` for the free name of a callback or a logger."""
    group, _, name = path.partition(".")
    return f"{group}.*" if group in ("callbacks", "logger") and "." not in name else path


def typed_targets() -> frozenset[str]:
    """Every `_target_` that this command line names, by an option or by a file of a configuration directory."""
    hydra = HydraConfig.get()
    values = [o.value() for o in OverridesParser.create().parse_overrides(list(hydra.overrides.task))]
    keys = [o.partition("=")[0] for o in hydra.overrides.task]
    found = {v for k, v in zip(keys, values, strict=True) if k.endswith("_target_") and isinstance(v, str)}
    found |= {node["_target_"] for value in values for _, node in components(value)}
    for source in hydra.runtime.config_sources:
        if source.schema == "file" and Path(source.path) != CONF:
            found |= {target for file in Path(source.path).rglob("*.yaml") for target in file_targets(file)}
    return frozenset(found)


def file_targets(file: Path) -> Iterator[str]:
    """Every `_target_` of a YAML file; none of one that cannot be read."""
    with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError):
        for _, node in components(yaml.safe_load(file.read_text("utf-8"))):
            yield str(node["_target_"])


def components(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_` in nested plain data, with its dotted path; lists are searched, as Hydra does."""
    if isinstance(node, Mapping) and "_target_" in node:
        yield path, node
    for key, value in entries(node):
        yield from components(value, f"{path}.{key}" if path else str(key))


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value in nested plain data, with its dotted path."""
    if not isinstance(node, Mapping | list):
        yield path, node
    for key, value in entries(node):
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def entries(node: Any) -> Iterable[tuple[Any, Any]]:
    """The keys and values of a mapping or a list; nothing of anything else."""
    return node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
