"""What a sweep shows of its jobs: a line for each that has ended, and on a terminal one for each that runs."""

import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

OUTPUT = "output.log"  # in a job's directory: what it prints
TAIL_BYTES = 4096
# Lines of `minigpt.training.callbacks.progress`, and of `minigpt.cli` and `minigpt.training.fit`.
STEP_LINE = re.compile(r"^(step \d+/\d+(?:  loss \S+)?)", re.MULTILINE)
ERROR_LINE = re.compile(r"^error: (.*)$", re.MULTILINE)


class JobLines:
    """The lines of the jobs of a sweep, from several threads. Use it as a context.

    Args:
        total: how many jobs there are, those of earlier batches included.
        is_live: show the running jobs where the output is a terminal.
    """

    def __init__(self, total: int, is_live: bool = True) -> None:
        self.total = total
        self.console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            TextColumn("{task.fields[progress]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            refresh_per_second=4,
            expand=True,
            disable=not (is_live and self.console.is_interactive),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line as it is."""
        self.console.print(line, soft_wrap=True, markup=False)

    def begin(self, job: int, name: str) -> TaskID:
        """Show that a job runs."""
        return self._progress.add_task(f"[{job + 1}/{self.total}] {name}", progress="")

    def update(self, task: TaskID, output: str) -> None:
        """Show how far a job is, by the end of what it has printed."""
        for progress in STEP_LINE.findall(output)[-1:]:
            self._progress.update(task, progress=progress)

    def end(self, task: TaskID, job: int, name: str, summary: dict[str, Any], seconds: float, place: str) -> None:
        """Print the line of a job that has ended; its error, if it has one, on the standard error."""
        self._progress.remove_task(task)
        loss = summary.get("val_loss_best")
        words = [f"[{job + 1}/{self.total}] {name}", str(summary.get("status"))]
        words += [f"val loss {loss:.4f}"] if isinstance(loss, int | float) else []
        self.say("  ".join([*words, f"{seconds:.1f} s", place]))
        if summary.get("status") == "failed":
            print(f"error: job {job}: {summary.get('error')}", file=sys.stderr, flush=True)


def tail(path: Path) -> str:
    """The end of a text file; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_error(output: str) -> str | None:
    """The newest of the one-line errors in what a job has printed."""
    return next(iter(ERROR_LINE.findall(output)[-1:]), None)
