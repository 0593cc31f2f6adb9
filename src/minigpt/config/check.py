"""Check a composed configuration against what it will build, before anything heavy is imported or anything is written.

The schema of a component is its constructor's signature, that of a command its dataclass in `minigpt.config.schema`.
"""

import ast
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from minigpt.config import schema
from minigpt.config.annotations import mismatch
from minigpt.config.errors import ConfigError, did_you_mean, given_option, unknown_option
from minigpt.config.packaged import components
from minigpt.config.signature import (
    Signature,
    find_name,
    given_arguments,
    package_exists,
    parse_module,
    read_signature,
)


def check(config: DictConfig, command: str) -> dict[str, Any]:
    """The configuration as resolved plain data.

    Raises:
        ConfigError: for the first thing in it that cannot be used.
        omegaconf.errors.OmegaConfBaseException: for a value that is missing or refers to nothing.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    plain: dict[str, Any] = {"callbacks": {}, "logger": {}} | resolved if command == "train" else resolved
    dataclass = schema.COMMANDS[command]
    own = {key: value for key, value in plain.items() if key != "paths"}
    check_options("", own, f"{schema.__name__}.{dataclass.__name__}", {"paths": "conf/paths"}, config=plain)
    check_options("paths.", plain["paths"], f"{schema.__name__}.{schema.Paths.__name__}", {}, config=plain)
    for field in fields(dataclass):
        check_groups(field.name, field.type, plain[field.name])
    check_components(plain)
    return plain


def check_components(config: Mapping[str, Any]) -> None:
    """Hold each component in nested plain data against the signature of its `_target_`, see `check_component`.

    Raises:
        ConfigError: for the first option that does not fit.
    """
    targets = {path: str(node["_target_"]) for path, node in components(config)}
    for path, node in components(config):
        check_component(path, node, given_arguments(path, targets), config)


def check_groups(path: str, annotation: Any, value: Any) -> None:
    """Raises ConfigError where a component is expected and none is given."""
    kind = annotation.__origin__
    if kind == schema.Component and "_target_" not in value:
        raise ConfigError(f"{path} has no _target_: choose one with {path}=...")
    for name, node in value.items() if kind == schema.Components else ():
        if node is not None and not (isinstance(node, Mapping) and "_target_" in node):
            raise ConfigError(f"{path}.{name}={node} is not a component: it needs a _target_, or must be null")


def check_component(path: str, node: Mapping[str, Any], passed: Mapping[str, str], config: Any = None) -> None:
    """Hold the options of a component against the signature of its `_target_`.

    Args:
        path: where it stands in the configuration.
        node: its options.
        passed: the arguments that whoever builds it passes, and where those come from.
        config: the whole configuration, for suggestions.

    Raises:
        ConfigError: there is no such `_target_`, or an option does not fit.
    """
    target, partial = node["_target_"], node.get("_partial_", False)
    if not isinstance(target, str) or not isinstance(partial, bool):
        raise ConfigError(f"{path}: _target_={target!r} must be a dotted name and _partial_={partial!r} true or false")
    if partial and not passed and "." not in path:
        raise ConfigError(f"{path}._partial_=true: nothing completes this component, leave it out")
    signature = read_signature(target)
    if signature is None:
        check_exists(path, target)
        return
    options = {key: value for key, value in node.items() if not str(key).startswith("_")}
    for key in options.keys() & passed.keys():
        raise ConfigError(given_option(path, key, passed[key], config))
    # Who completes a partial component is known where its parent's source says so.
    check_options(f"{path}.", options, target, passed, bool(passed) or not partial, config)


def check_options(
    prefix: str,
    options: Mapping[str, Any],
    target: str,
    passed: Mapping[str, str],
    is_complete: bool = True,
    config: Any = None,
) -> None:
    """Raises ConfigError for an option that is unknown, missing or does not fit its annotation."""
    signature: Signature = read_signature(target) or {}
    for key, value in options.items():
        if key not in signature:
            absent = signature.keys() - options.keys() - passed.keys()
            raise ConfigError(unknown_option(f"{prefix}{key}", options.keys() & signature.keys(), absent, config))
        if (wanted := mismatch(signature[key], value)) is not None:
            choose = (
                f": choose one with {prefix.replace('.', '/')}{key}=..." if wanted.startswith("a component") else ""
            )
            raise ConfigError(
                f"{prefix}{key}={value if isinstance(value, str) else repr(value)} must be {wanted}{choose}"
            )
    for key, parameter in signature.items():
        if parameter.required and is_complete and key not in {*options, *passed}:
            raise ConfigError(f"{prefix}{key} must be given: {prefix}{key}=...")


def check_exists(path: str, target: str) -> None:
    """Raises ConfigError for a `_target_` that certainly does not exist; one without Python source is left to Hydra."""
    module, _, name = target.rpartition(".")
    tree = parse_module(module)
    if tree is None:
        if not module or not package_exists(module):
            advice = "is its package installed, or its file in the current directory?"
            raise ConfigError(f"{path}._target_: there is no {target}: {advice}")
        return
    names = {getattr(node, "name", "") for node in tree.body}
    is_dynamic = "__getattr__" in names or any(
        isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in tree.body
    )
    if find_name(target) is None and not is_dynamic:
        raise ConfigError(f"{path}._target_: there is no {name!r} in {module}{did_you_mean(name, names)}")
