"""Everything that is decided about resuming a run: which run, which checkpoint, what changed, what to cut back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.runs.directory import (
    CHECKPOINTS,
    METRICS,
    SAMPLES,
    check_run_files,
    find_run,
    step_checkpoints,
    step_of,
)
from minigpt.runs.run_files import check_written, truncate_metrics, truncate_samples
from minigpt.runs.slurm import requeued_run
from minigpt.runs.summary import is_complete, read_summary
from minigpt.runs.untrusted import UntrustedFileError, check_mapping

NEEDED = {  # of a checkpoint, with their types
    "minigpt": dict,
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}


def select_run(resume: str | None, run_dir: str | None, runs_dir: Path, overrides: list[str]) -> Path | None:
    """The directory of the run that a command continues; None when it starts a new one.

    Args:
        resume: a run directory, `latest`, `auto`, or None. `auto` continues the run in `run_dir`, or the newest run if
            that is not complete. None continues only what the same command began in a Slurm job that was requeued.
        run_dir: the directory that was asked for.
        runs_dir: where runs without one are made.
        overrides: the options of the command.

    Raises:
        ValueError: there is no such run, or it is damaged.
    """
    if resume is None:
        return requeued_run(runs_dir, overrides)
    if resume != "auto":
        return find_run(resume, runs_dir)
    try:
        directory = find_run(run_dir or "latest", runs_dir)
    except UntrustedFileError:
        raise
    except ValueError:
        return None
    if not step_checkpoints(directory / CHECKPOINTS):
        return None
    return None if run_dir is None and is_complete(read_summary(directory) or {}) else directory


@dataclass(frozen=True)
class ResumePlan:
    """What a resumed run continues from. Nothing is changed before `apply`.

    Attributes:
        checkpoint: the file.
        content: what is in it, loaded once.
        damaged: checkpoints of later steps that do not match their checksum.
    """

    checkpoint: Path
    content: dict[str, Any]
    damaged: list[Path]

    @property
    def step(self) -> int:
        """The last step that is kept."""
        return step_of(self.checkpoint)

    def refuse_changes(self, fingerprint: dict[str, Any]) -> None:
        """Raises ValueError, naming each difference, when the run to come would not be the one of the checkpoint."""
        if changes := list(differences(self.content["minigpt"].get("fingerprint", {}), fingerprint)):
            raise ValueError(
                f"this would not be the run of {self.checkpoint}: {'; '.join(changes)}. "
                f"Start a new run, or add ignore_fingerprint=true"
            )

    def apply(self) -> None:
        """Put the run directory back to the state that it had at the checkpoint. For one process of a run alone."""
        from minigpt.runs.checkpoint_io import quarantine, remove_temp_files  # torch: a second that selecting saves

        folder = self.checkpoint.parent
        remove_temp_files(folder.parent)
        quarantine(self.damaged, self.checkpoint)
        truncate_metrics(folder.parent / METRICS, self.step)
        truncate_samples(folder.parent / SAMPLES, self.step)


def plan_resume(directory: Path, max_steps: int) -> ResumePlan:
    """Find and load the checkpoint that a run continues from, each file hashed and loaded once.

    Raises:
        ValueError: there is none, it is not a checkpoint of a training, or the run is complete.
    """
    from minigpt.runs.checkpoint_io import load_latest

    check_run_files(directory)
    check_written(directory)
    found = load_latest(directory / CHECKPOINTS)
    if found is None:
        raise ValueError(f"{directory} has no undamaged checkpoint to resume from")
    checkpoint, content, damaged = found
    if (step := step_of(checkpoint)) >= max_steps and is_complete(read_summary(directory) or {}):
        raise ValueError(f"{directory} is complete at step {step}: add trainer.max_steps=N with a larger N to continue")
    if missing := [name for name, kind in NEEDED.items() if not isinstance(content.get(name), kind)]:
        raise ValueError(f"{checkpoint} is not a checkpoint of a training: it has no {', '.join(missing)}")
    check_mapping(content["minigpt"].get("fingerprint", {}), f"the fingerprint of {checkpoint}")
    return ResumePlan(checkpoint, content, damaged)


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
