"""A run on disk, from its first file to its summary."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from minigpt.runs.checkpoints import check_space, load_checkpoint, newest_sound, set_aside, sweep
from minigpt.runs.directory import (
    CHECKPOINTS,
    CONFIG,
    is_rank_zero,
    make_run_directory,
    step_checkpoints,
    step_of,
    write_text_files,
)
from minigpt.runs.redaction import redact
from minigpt.runs.summary import read_summary

log = logging.getLogger("minigpt")
NEEDED = ("minigpt", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")  # to go on from


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


def open_run(
    config: dict[str, Any],
    fingerprint: dict[str, Any],
    checkpoint_bytes: int,
    overrides: list[str],
    hydra_config: str,
) -> Run:
    """Make the run directory and write down what is run; or open the one that is resumed.

    Raises:
        ValueError: the directory cannot be made, has no room for the checkpoints, or there is nothing to resume.
    """
    if is_rank_zero():
        kept = (config["callbacks"].get("checkpoints") or {}).get("keep_last", 0)
        folder = Path(config["resume"] or config["paths"]["run_dir"] or config["paths"]["log_dir"])
        check_space(folder, checkpoint_bytes, kept + 2)  # the best one, and one that is being written
    if config["resume"]:
        directory = Path(config["resume"])
        refuse_links(directory)
        earlier = read_summary(directory) or {}
        checkpoint = resumable_checkpoint(directory, config["trainer"]["max_steps"], earlier.get("status"))
        refuse_another_run(checkpoint, fingerprint, anyway=config["resume_anyway"])
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


def refuse_links(directory: Path) -> None:
    """Raises ValueError for a run directory whose files lie elsewhere: it may be anybody's, and is written to."""
    for path in [directory / CHECKPOINTS, *directory.rglob("*")]:
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link: a run directory must hold its files itself")


def refuse_another_run(checkpoint: Path, fingerprint: dict[str, Any], *, anyway: bool = False) -> None:
    """See that a checkpoint can be resumed from, and with this fingerprint unless `anyway`.

    Raises:
        ValueError: it is no checkpoint of a training, or of another run; each difference is named.
    """
    content = load_checkpoint(checkpoint)
    if missing := [name for name in NEEDED if not isinstance(content.get(name), dict | list)]:
        raise ValueError(f"{checkpoint} is no checkpoint of a training: it has no {', '.join(missing)}")
    saved = content["minigpt"].get("fingerprint", {}) if isinstance(content["minigpt"], dict) else {}
    changes = list(differences(saved, fingerprint))
    if changes and not anyway:
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


def resumable_checkpoint(directory: Path, max_steps: int, status: str | None) -> Path:
    """The newest checkpoint of a run that has steps left to do, or was killed after the last before it could conclude.

    Raises:
        ValueError: there is none, or the run is complete.
    """
    found = newest_sound(directory / CHECKPOINTS)
    if found is None:
        raise ValueError(f"{directory} has no sound checkpoint to resume from")
    if (step := step_of(found)) >= max_steps and status == "completed":
        raise ValueError(f"{directory} is complete at step {step}: add trainer.max_steps=N with a larger N to go on")
    return found


class RedactingFormatter(logging.Formatter):
    """Leaves secrets out of a log."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def start_log(directory: Path) -> None:
    """Write what the package logs, and Python's warnings, to `train.log`."""
    handler = logging.FileHandler(directory / "train.log", encoding="utf-8")
    handler.handleError = lambda record: None  # a full disk is met, and told, where checkpoints are written
    handler.setFormatter(RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    for earlier in log.handlers:  # of another run in this process
        earlier.close()
    for name in ("minigpt", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    log.setLevel(logging.INFO)
