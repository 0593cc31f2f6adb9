"""User errors as one line that says what would be right."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue

from minigpt.config.packaged import CONF, config_groups, leaves
from minigpt.config.signature import read_signature

# Options of lightning-hydra-template, and what they are called here.
ELSEWHERE = {
    "ckpt_path": "resume=RUN_DIR continues a run; evaluate.py, generate.py and export.py take run=CHECKPOINT",
    "test": "score a run with python src/evaluate.py run=latest",
    "train": "python src/train.py always trains; python src/evaluate.py run=latest scores a run",
    "task_name": "name=... names a run",
    "extras": "the configuration is always printed, and tags=[...] is an option of its own",
    "optimized_metric": "sweeps are ranked by the best validation loss, in bits per character",
}


class ConfigError(ValueError):
    """An option, file or prompt that cannot be used; the message says what would be right."""


def did_you_mean(wrong: str, known: Iterable[Any]) -> str:
    """`; did you mean 'x'?` for the nearest known name, or all names when none is near."""
    names = sorted(str(name) for name in known if not str(name).startswith("_"))
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near or not names:
        return f"; did you mean {near[0]!r}?" if near else ""
    return f"; there is: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"


def unknown_option(path: str, known: Iterable[Any], config: Any = None) -> str:
    """A line for an option that does not exist, with the most likely one that does.

    Args:
        path: the option as it was typed.
        known: the options beside it that exist.
        config: the whole configuration, where an option of the same name may stand deeper.
    """
    said = f"unknown option {path!r}"
    if path in ELSEWHERE:
        return f"{said}: {ELSEWHERE[path]}"
    names = [str(name) for name in known]
    deeper = [leaf for leaf, _ in leaves(config) if leaf.endswith(f".{path}") and "." not in path]
    if deeper and not difflib.get_close_matches(path, names, n=1, cutoff=0.8):
        return f"{said}; did you mean {min(deeper, key=lambda leaf: leaf.count('.'))!r}?"
    return said + did_you_mean(path.rpartition(".")[2], names)


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
    signature = read_signature(str(siblings.get("_target_"))) or {}
    if key in signature:
        return f"{path!r} is left at its default by the configuration: set it with a plus, +{path}=..."
    return unknown_option(path, {*siblings, *signature}, siblings)


def explain_unknown_group(text: str) -> str:
    """Hydra's words for a group that is not in the defaults list, with a suggestion."""
    return unknown_option(text.partition("'")[2].partition("'")[0], config_groups())
