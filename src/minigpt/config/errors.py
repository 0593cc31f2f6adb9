"""A mistake of the user's, said in one line."""

import difflib
from collections.abc import Iterable
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from minigpt.config.conf import CONF, groups
from minigpt.config.signature import read_signature


class ConfigError(ValueError):
    """An option, file or prompt that cannot be used; the message says what would be right."""


def did_you_mean(wrong: str, known: Iterable[Any]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or all names when none is near."""
    names = sorted(str(name) for name in known if not str(name).startswith("_"))
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near or not names:
        return f"; did you mean {near[0]!r}?" if near else ""
    return f"; there is: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or our own."""
    cause: BaseException = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group.startswith("hydra/"):
            return f"no {group} {choice!r} is installed: extras bring some, such as pip install -e '.[optuna]'"
        there = [file.stem for file in (CONF / group).glob("*.yaml")]  # Hydra lists those of the outermost folder
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
    """A key that is not in the composed configuration; some are options that only need a plus sign."""
    parent = parent if isinstance(parent, DictConfig) else {}
    signature = read_signature(str(parent.get("_target_"))) or {}
    if key in signature:
        return f"{path!r} is left at its default by the configuration: set it with a plus, +{path}=..."
    return f"unknown option {path!r}{did_you_mean(key, {*parent, *signature})}"


def explain_unknown_group(text: str) -> str:
    """Hydra's words for a group that is not in the defaults list, with a suggestion."""
    wrong = text.partition("'")[2].partition("'")[0]
    return f"unknown option {wrong!r}{did_you_mean(wrong, groups())}"
