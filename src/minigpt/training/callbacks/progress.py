"""Show the progress of a run: a bar on a terminal, a line every few seconds anywhere else."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from minigpt.bounds import PositiveFloat
from minigpt.training.callbacks import find
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.terminal import console


class ProgressBar(Callback):
    """Shows the remaining time of the whole run and what `Metrics` measured last; never synchronizes with the device.

    Args:
        line_every_s: seconds between two lines when the output is not a terminal.
    """

    def __init__(self, *, line_every_s: PositiveFloat = 5.0) -> None:
        self.line_every_s = line_every_s
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._shown = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[metrics]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, metrics="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        step, now = trainer.global_step, time.monotonic()
        is_last = step == trainer.max_steps
        if self._bar is not None and (now - self._shown > 0.2 or is_last):
            self._shown = now
            self._bar.update(self._task, completed=step, metrics=describe(trainer))
        elif self._bar is None and (now - self._shown > self.line_every_s or is_last):
            self._shown = now
            console.print(f"step {step}/{trainer.max_steps}  {describe(trainer)}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def describe(trainer: Trainer) -> str:
    """The newest metrics on one line."""
    metrics = find(trainer, Metrics)
    if metrics is None:
        return ""
    parts = [f"loss {metrics.loss:.3f}"] if metrics.loss is not None else []
    parts += [f"val {metrics.val['val/loss']:.4f}"] if "val/loss" in metrics.val else []
    parts += [f"{metrics.tokens_per_s:,.0f} tokens/s"] if metrics.tokens_per_s is not None else []
    return "  ".join(parts)
