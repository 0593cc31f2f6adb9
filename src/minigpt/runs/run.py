"""A run on disk: its directory from the first file to the last."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import yaml

from minigpt.runs.directory import (
    CHECKPOINTS,
    CONFIG,
    METRICS,
    SAMPLES,
    check_own_files,
    is_rank_zero,
    make_run_directory,
    step_checkpoints,
    write_text_files,
)
from minigpt.runs.resume import ResumePlan, plan_resume
from minigpt.runs.summary import read_summary


@dataclass
class Run:
    """Where a run writes, and what it continues from. Use it as a context: a directory that was made for a run that
    never started, because its options were refused, is removed at the end.

    Attributes:
        directory: the run directory; None in all processes but the first.
        config: the whole configuration, plain data.
        overrides: the options that it was started with.
        choices: the chosen component of each group; empty for a run that is resumed, which has its own.
        files: small text files to be written when it starts, by their names in the directory.
        plan: what it resumes from; None for a new run.
        previous_summary: what a resumed run had written when it stopped.
        made: directories that were made for it, outermost first.
    """

    directory: Path | None
    config: dict[str, Any]
    overrides: list[str] = field(default_factory=list)
    choices: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    plan: ResumePlan | None = None
    previous_summary: dict[str, Any] = field(default_factory=dict)
    made: list[Path] = field(default_factory=list)

    def refuse_changes(self, fingerprint: dict[str, Any]) -> None:
        """Raises ValueError if the run that is resumed was another one, unless the command line wants that."""
        if self.plan is not None and not self.config["ignore_fingerprint"]:
            self.plan.refuse_changes(fingerprint)

    def start(self, fingerprint: dict[str, Any]) -> None:
        """Begin to write, and put a resumed run's directory back to its checkpoint.

        Raises:
            ValueError: the run that is resumed was another one, see `ResumePlan.refuse_changes`.
        """
        self.refuse_changes(fingerprint)
        self.made.clear()
        if self.directory is None:
            return
        if self.plan is not None:
            self.plan.apply()
        else:
            for name in (METRICS, SAMPLES):  # of a run that ended before its first checkpoint
                (self.directory / name).unlink(missing_ok=True)
        write_text_files(self.directory, self.files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for directory in reversed(self.made):
            with contextlib.suppress(OSError):  # somebody else has put something into it
                directory.rmdir()


def open_run(
    config: dict[str, Any], overrides: list[str], hydra_config: str, choices: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    """Make the directory of a new run, or plan how to resume the one that `config["resume"]` names.

    Args:
        overrides: the options that this program was started with.
        hydra_config: Hydra's own configuration as YAML.
        choices: the chosen component of each group.

    Raises:
        ValueError: the directory cannot be made or holds a run, or there is nothing to resume from.
    """
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if config["resume"]:
        directory = Path(config["resume"])
        plan = plan_resume(directory, config["trainer"]["max_steps"])
        summary = read_summary(directory) or {}
        first = summary.get("overrides", [])
        overrides = [*first, *(o for o in overrides if not o.startswith("resume=") and o not in first)]
        # The next resume continues with what was changed by this one.
        return Run(
            directory if is_rank_zero() else None,
            config,
            overrides,
            files={CONFIG: text},
            plan=plan,
            previous_summary=summary,
        )
    if not is_rank_zero():
        return Run(None, config, overrides, choices)
    files = {
        CONFIG: text,
        ".hydra/config.yaml": text,
        ".hydra/overrides.yaml": yaml.safe_dump(overrides),
        ".hydra/hydra.yaml": hydra_config,
    }
    directory, made = new_directory(config)
    return Run(directory, config, overrides, choices, files, made=made)


def new_directory(config: Mapping[str, Any]) -> tuple[Path, list[Path]]:
    """The directory of a new run, and which directories were made for it, outermost first.

    Raises:
        ValueError: it cannot be made, or holds a run already.
    """
    paths = config["paths"]
    parent = Path(paths["run_dir"] or paths["runs_dir"])
    missing = [p for p in (parent, *parent.parents) if not p.exists()]
    if not paths["run_dir"]:
        directory = make_run_directory(parent, config["name"])
        return directory, [*reversed(missing), directory, directory / CHECKPOINTS]
    if step_checkpoints(parent / CHECKPOINTS):
        raise ValueError(f"{parent} holds a run already: continue it with resume={parent}")
    check_own_files(parent)
    try:
        (parent / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{parent} cannot be written ({error.strerror}): name another folder with paths.run_dir=..."
        ) from error
    return parent, [*reversed(missing), parent / CHECKPOINTS]
