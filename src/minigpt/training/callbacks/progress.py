"""Show the progress of a run: a bar and a curve of the losses on a terminal, a line every few seconds elsewhere."""

import time
from collections.abc import Iterable
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from minigpt.bounds import PositiveFloat
from minigpt.training.callbacks import find
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.loss_curve import LossCurve
from minigpt.training.terminal import console

BAR_EVERY_S = 0.2  # seconds between two changes of the bar


class ProgressBar(Callback):
    """Shows the remaining time of the whole run and what `Metrics` measured last; never synchronizes with the device.

    A validation has a bar of its own, in the place of the other one. The curve stays on the screen at the end.

    Args:
        line_every_s: seconds between two lines when the output is not a terminal.
    """

    def __init__(self, *, line_every_s: PositiveFloat = 5.0) -> None:
        self.line_every_s = line_every_s
        self._bar: CurveAndBars | None = None
        self._training = self._validation = TaskID(0)
        self._shown = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and console.is_interactive and not console.quiet:
            total, done = trainer.max_steps, trainer.global_step
            self._bar = make_bar(LossCurve(done, total))
            self._training = self._bar.add_task("training", total=total, completed=done, metrics="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        step, now = trainer.global_step, time.monotonic()
        is_last = step == trainer.max_steps
        if self._bar is not None and (now - self._shown > BAR_EVERY_S or is_last):
            self._shown = now
            self._bar.update(self._training, completed=step, metrics=describe(trainer))
            if (metrics := find(trainer, Metrics)) is not None:
                self._bar.curve.add(step, metrics.loss)
        elif self._bar is None and (now - self._shown > self.line_every_s or is_last):
            self._shown = now
            console.print(f"step {step}/{trainer.max_steps}  {describe(trainer)}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._training, visible=False)
            total = sum(trainer.num_val_batches)
            self._validation = self._bar.add_task("validation", total=total, metrics=f"step {trainer.global_step}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        now = time.monotonic()
        if self._bar is not None and now - self._shown > BAR_EVERY_S:
            self._shown = now
            self._bar.update(self._validation, completed=batch_idx + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.remove_task(self._validation)
            self._bar.update(self._training, visible=True, metrics=describe(trainer))
            metrics = find(trainer, Metrics)
            if metrics is not None and "val/loss" in metrics.val:
                self._bar.curve.add_val(trainer.global_step, metrics.val["val/loss"])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bar = self._bar
        self.stop()
        if bar is not None:
            console.print(bar.curve)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.stop()

    def stop(self) -> None:
        """Remove the bar and the curve from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class CurveAndBars(Progress):
    """Bars below a curve of the losses."""

    def __init__(self, *columns: ProgressColumn, curve: LossCurve, **options: Any) -> None:
        self.curve = curve
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        return self.curve, *super().get_renderables()


def make_bar(curve: LossCurve) -> CurveAndBars:
    """A bar that takes what its figures leave of a line, so that 80 columns hold it."""
    figures = Column(no_wrap=True, overflow="ellipsis")
    return CurveAndBars(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}", table_column=figures),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        curve=curve,
        console=console,
        transient=True,
        refresh_per_second=4,
        expand=True,
    )


def describe(trainer: Trainer) -> str:
    """The newest metrics on one line."""
    metrics = find(trainer, Metrics)
    if metrics is None:
        return ""
    parts = [f"loss {metrics.loss:.3f}"] if metrics.loss is not None else []
    parts += [f"val {metrics.val['val/loss']:.4f}"] if "val/loss" in metrics.val else []
    parts += [f"{metrics.tokens_per_s:,.0f} tokens/s"] if metrics.tokens_per_s is not None else []
    return "  ".join(parts)
