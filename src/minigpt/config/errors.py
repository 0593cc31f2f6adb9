"""A mistake of the user's, said in one line."""

import difflib
from collections.abc import Iterable
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException


class ConfigError(ValueError):
    """An option, file or prompt that cannot be used; the message says what would be right."""


def did_you_mean(wrong: str, known: Iterable[Any]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or all names when none is near."""
    names = sorted(str(name) for name in known)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there is: {', '.join(names)}" if names else ""


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or our own."""
    cause = error.__cause__ if isinstance(error, HydraException) and error.__cause__ is not None else error
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"no choice {choice!r} for {group}{did_you_mean(choice, error.options)}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        known = cause.parent_node if isinstance(cause.parent_node, DictConfig) else {}
        return f"unknown option {cause.full_key!r}{did_you_mean(str(cause.key), known)}"
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} must be given: {cause.full_key}=..."
    if isinstance(error, OverrideParseException):
        return f"cannot read the option {error.override!r}: quote it, or write it as key=value"
    if isinstance(error, ConfigCompositionException) and "No match in the defaults list" in str(error):
        return explain_unknown_group(str(error))
    text = str(cause if isinstance(cause, OmegaConfBaseException) else error) or type(error).__name__
    if "Ambiguous value for argument" in text:
        return text.splitlines()[0] + ": add -m to run each of them, or write key=[a,b] for a list"
    return text.splitlines()[0]


def explain_unknown_group(text: str) -> str:
    """Hydra's words for a group that is not in the defaults list, with a suggestion."""
    from minigpt.config.conf import groups

    wrong = text.partition("'")[2].partition("'")[0]
    return f"unknown option {wrong!r}{did_you_mean(wrong, groups())}"
