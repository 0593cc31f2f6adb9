"""A run on disk, from its first file to its summary."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from minigpt.runs.checkpoints import load_checkpoint, newest_sound, set_aside, sweep
from minigpt.runs.directory import (
    CHECKPOINTS,
    CONFIG,
    is_rank_zero,
    make_run_directory,
    step_checkpoints,
    step_of,
    write_text_files,
)
from minigpt.runs.summary import read_summary

log = logging.getLogger("minigpt")


@dataclass
class Run:
    """Where a run writes, and what it goes on from.

    Attributes:
        directory: the run directory; None in all processes but the first.
        checkpoint: what to resume from; None for a new run.
        earlier: the summary that a resumed run left when it stopped.
        overrides: the options that it was started with.
        config: its whole configuration, plain data.
    """

    directory: Path | None
    checkpoint: Path | None
    earlier: dict[str, Any]
    overrides: list[str]
    config: dict[str, Any]


def open_run(config: dict[str, Any], fingerprint: dict[str, Any], overrides: list[str], hydra_config: str) -> Run:
    """Make the run directory and write down what is run; or open the one that is resumed.

    Raises:
        ValueError: the directory cannot be made, or there is nothing to resume.
    """
    if config["resume"]:
        directory = Path(config["resume"])
        checkpoint = resumable_checkpoint(directory, config["trainer"]["max_steps"])
        if not config["resume_anyway"]:
            refuse_another_run(checkpoint, fingerprint)
        earlier = read_summary(directory) or {}
        if is_rank_zero():
            sweep(directory / CHECKPOINTS)
            set_aside(directory / CHECKPOINTS, checkpoint)
            write_text_files(directory, {CONFIG: to_yaml(config)})  # the next resume goes on with what was changed now
        first = earlier.get("overrides", [])
        own = [o for o in overrides if not o.startswith("resume=") and o not in first]
        return Run(directory if is_rank_zero() else None, checkpoint, earlier, [*first, *own], config)
    if not is_rank_zero():
        return Run(None, None, {}, overrides, config)
    if config["paths"]["run_dir"]:
        directory = Path(config["paths"]["run_dir"])
        if step_checkpoints(directory / CHECKPOINTS):
            raise ValueError(f"{directory} holds a run already: continue it with resume={directory}")
        (directory / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for name in ("metrics.csv", "samples.md"):  # of a run that ended before its first checkpoint
            (directory / name).unlink(missing_ok=True)
    else:
        directory = make_run_directory(Path(config["paths"]["log_dir"]) / "runs", config["name"])
    text = to_yaml(config)
    files = {
        CONFIG: text,
        ".hydra/config.yaml": text,
        ".hydra/overrides.yaml": yaml.safe_dump(overrides),
        ".hydra/hydra.yaml": hydra_config,
    }
    write_text_files(directory, files)
    return Run(directory, None, {}, overrides, config)


def refuse_another_run(checkpoint: Path, fingerprint: dict[str, Any]) -> None:
    """Raises ValueError, naming each difference, when a checkpoint is of a run with another fingerprint."""
    saved = load_checkpoint(checkpoint).get("minigpt", {}).get("fingerprint", {})
    changes = list(differences(saved, fingerprint))
    if changes:
        raise ValueError(
            f"this would not be the run of {checkpoint}: {'; '.join(changes)}. "
            f"Start a new run, or add resume_anyway=true"
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`path: old -> new` for each value that two nested mappings do not share."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path}: {shorten(old)} -> {shorten(new)}"


def shorten(value: Any) -> str:
    """A value for a message of one line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def to_yaml(config: dict[str, Any]) -> str:
    """A configuration as text, in its own order."""
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def resumable_checkpoint(directory: Path, max_steps: int) -> Path:
    """The newest checkpoint of a run that has steps left to do.

    Raises:
        ValueError: there is none, or the run is complete.
    """
    found = newest_sound(directory / CHECKPOINTS)
    if found is None:
        raise ValueError(f"{directory} has no sound checkpoint to resume from")
    if (step := step_of(found)) >= max_steps:
        raise ValueError(f"{directory} is complete at step {step}: add trainer.max_steps=N with a larger N to go on")
    return found


def start_log(directory: Path) -> None:
    """Write what the package logs, and Python's warnings, to `train.log`."""
    handler = logging.FileHandler(directory / "train.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    for name in ("minigpt", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    log.setLevel(logging.INFO)
