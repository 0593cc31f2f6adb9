"""User errors as one line that says what would be right."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from minigpt.config.other_words import ELSEWHERE, OTHER_WORDS
from minigpt.config.packaged import CONF, components, config_groups, leaves
from minigpt.config.signature import given_arguments, read_signature


class ConfigError(ValueError):
    """An option, file or prompt that cannot be used; the message says what would be right."""


def did_you_mean(wrong: str, known: Iterable[Any], shown: Mapping[str, str] | None = None) -> str:
    """`; did you mean 'x'?` for the nearest known name, or all names when none is near.

    Args:
        wrong: what was typed.
        known: the names that exist.
        shown: how each of them is written, if otherwise.
    """
    names = sorted(str(name) for name in known if not str(name).startswith("_"))
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near or not names:
        return f"; did you mean {(shown or {}).get(near[0], near[0])!r}?" if near else ""
    return f"; there is: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def unknown_option(path: str, present: Iterable[Any], absent: Iterable[Any] = (), config: Any = None) -> str:
    """A line for an option that does not exist, with the most likely one that does, as it would be typed.

    Args:
        path: the option as it was typed.
        present: the options beside it that the configuration has.
        absent: further ones that can be added with a plus.
        config: the whole configuration, where the option may stand elsewhere.
    """
    said = f"unknown option {path!r}"
    group, _, word = path.rpartition(".")
    word = word.lower().replace("-", "_")
    present, absent = [str(name) for name in present], [str(name) for name in absent]
    near = difflib.get_close_matches(word, [*present, *absent], n=1, cutoff=0.8)
    for guess in (word, *(name for name in near if name not in present)):
        if found := ours(guess, config):
            return f"{said}; did you mean {found!r}?"
        if guess in ELSEWHERE and has_option(config, "model"):
            return f"{said}: {ELSEWHERE[guess]}"
    deeper = [leaf for leaf, _ in leaves(config) if leaf.endswith(f".{path}") and not group]
    if deeper and not near:
        return f"{said}; did you mean {min(deeper, key=lambda leaf: (is_observer(leaf), leaf.count('.')))!r}?"
    plus = {
        name: f"{'' if name in present else '+'}{group}{'.' if group else ''}{name}" for name in [*absent, *present]
    }
    return said + did_you_mean(word, plus, plus)


def ours(word: str, config: Any) -> str | None:
    """Our option for a word of others, if the configuration has it."""
    found = (option for option, words in OTHER_WORDS.items() if word in words.split() and has_option(config, option))
    return next(found, None)


def has_option(config: Any, option: str) -> bool:
    """Whether nested plain data has an option, such as `optimizer.lr`, or a group, such as `data/tokenizer`."""
    node = config
    for name in re.split("[./]", option):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def is_observer(path: str) -> bool:
    """Whether an option belongs to a callback or a logger, which one rarely means by a word such as `batch_size`."""
    return path.startswith(("callbacks.", "logger."))


def given_option(path: str, key: str, source: str, config: Any) -> str:
    """A line for an argument that whoever builds a component passes, and the option that it comes from, if any."""
    said = f"{path}.{key} is given by {source}"
    if has_option(config, source):
        return f"{said}: set that instead, {source}=..."
    group, _, name = source.rpartition(".")
    parent = next((node for place, node in components(config) if place == group), {})
    if name in (read_signature(str(parent.get("_target_"))) or {}) and name not in given_arguments(group, {}):
        return f"{said}: set that instead, +{source}=..."
    return f"{said}: leave it out"


def explain_flags(unknown: Sequence[str]) -> str:
    """A line for flags that Hydra does not have: most are options of ours, which have no dashes."""
    names = [flag.lstrip("-").partition("=")[0] for flag in unknown]
    said = f"unrecognized arguments: {' '.join(unknown)}; options have no dashes"
    known = [
        option for name in names for option, words in OTHER_WORDS.items() if name.replace("-", "_") in words.split()
    ]
    return f"{said}: {(known or names or ['KEY'])[0]}=..."


def explain(error: Exception, folders: Sequence[Path] = (CONF,)) -> str:
    """One line for an error of Hydra, OmegaConf or our own; `folders` are those of the configuration."""
    cause: BaseException = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group.startswith("hydra/"):
            return f"no {group} {choice!r} is installed: extras bring some, such as pip install -e '.[optuna]'"
        # Hydra itself lists those of the outermost group.
        there = [file.stem for folder in folders for file in (folder / group).glob("[!_]*.yaml")]
        return f"no choice {choice!r} for {group}{did_you_mean(choice, there)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        return explain_unknown_key(str(cause.full_key), str(cause.key), cause.parent_node)
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given: {cause.full_key}=..."
    if isinstance(error, OverrideParseException):
        advice = "write key=value, and quote a value with unusual characters: \"key='...'\""
        return f"cannot read the option {error.override!r}: {advice}"
    if isinstance(error, ConfigCompositionException) and "No match in the defaults list" in str(error):
        return explain_unknown_group(str(error))
    if isinstance(cause, OSError) and cause.filename:
        return f"{cause.filename}: {cause.strerror}"
    text = str(cause) or type(cause).__name__
    if "Ambiguous value for argument" in text:
        return text.splitlines()[0] + ": add -m to run each of them, or quote a text with commas: \"key='a, b'\""
    return text.splitlines()[0]


def explain_unknown_key(path: str, key: str, parent: Any) -> str:
    """A key that the composed configuration does not have; some are options that only need a plus sign."""
    parent = parent if isinstance(parent, DictConfig) else OmegaConf.create()
    siblings: Any = OmegaConf.to_container(parent, resolve=False)
    group = path.rpartition(".")[0]
    root: Any = OmegaConf.select(parent, "." * (path.count(".") + 1)) if group else parent
    config: Any = OmegaConf.to_container(root, resolve=False)
    signature = read_signature(str(siblings.get("_target_"))) or {}
    targets = {place: str(node["_target_"]) for place, node in components(config)}
    given = given_arguments(group, targets)
    if key in given:
        return given_option(group, key, given[key], config)
    if key in signature:
        return f"{path!r} is left at its default by the configuration: set it with a plus, +{path}=..."
    return unknown_option(path, siblings, signature.keys() - siblings.keys() - given.keys(), config)


def explain_unknown_group(text: str) -> str:
    """Hydra's words for a group that is not in the defaults list, with a suggestion."""
    group = text.partition("'")[2].partition("'")[0]
    if group in config_groups():
        return f"{group!r} is an option of train.py: this command takes a trained model, run=..."
    return f"unknown option {group!r}{did_you_mean(group, config_groups())}"
