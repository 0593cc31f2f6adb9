"""Save a run as it goes: by step, the best so far, the last."""

import math
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule

from minigpt.runs.checkpoints import link
from minigpt.runs.directory import CHECKPOINTS, step_checkpoints, step_of
from minigpt.training.trainer import Trainer


class Checkpoints(Callback):
    """`step_<n>.ckpt` every few steps, `last.ckpt` for the newest of them, `best.ckpt` for the lowest validation loss.

    Args:
        every_n_steps: optimizer steps between two checkpoints; None saves at each validation.
        keep_last: how many `step_<n>.ckpt` to keep; with two, one is left when the newest is damaged.
        background: write while training goes on; costs the memory of one copy of the state.
    """

    def __init__(self, *, every_n_steps: int | None, keep_last: int, background: bool) -> None:
        self.every_n_steps = every_n_steps
        self.keep_last = keep_last
        self.background = background
        self.best_loss = math.inf
        self.best_step: int | None = None
        self.saved_step: int | None = None
        self.folder = Path()

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self.best_loss, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_loss, self.best_step = state_dict["best_loss"], state_dict["best_step"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Rank 0 made the run directory; a sharded checkpoint is written by all.
        self.folder = trainer.strategy.broadcast(trainer.run_directory) / CHECKPOINTS
        trainer.files.background = self.background

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A run that was killed between a checkpoint and its other names gets them when it is resumed.
        if trainer.is_global_zero and trainer.ckpt_path is not None:
            path = Path(trainer.ckpt_path)
            self.publish(path, is_best=self.best_step == step_of(path))

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        # Where a validation follows, as after the last step, its result belongs into the checkpoint.
        if step % trainer.val_every_n_steps and step < trainer.max_steps and self.is_due(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics["val/loss"].item()
        improved = loss < self.best_loss
        if improved:
            self.best_loss, self.best_step = loss, trainer.global_step
        # Saving makes all processes meet, so each must take the same way through here.
        if self.is_due(trainer):
            self.save(trainer, is_best=improved)
        elif improved:
            trainer.save_checkpoint(self.best)

    def is_due(self, trainer: Trainer) -> bool:
        """Whether this step is to be saved."""
        return trainer.global_step % (self.every_n_steps or trainer.val_every_n_steps) == 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.saved_step != trainer.global_step:
            self.save(trainer)
        trainer.files.finish()

    def save(self, trainer: Trainer, is_best: bool = False) -> None:
        """Write `step_<n>.ckpt`, let `last.ckpt` (and `best.ckpt`) name it too, and drop the oldest."""
        trainer.lightning_module.refuse_non_finite()
        path = self.folder / f"step_{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            trainer.files.then(partial(self.publish, path, is_best))

    def publish(self, path: Path, is_best: bool) -> None:
        """Give a written checkpoint its other names."""
        link(path, self.last)
        if is_best:
            link(path, self.best)
        for old in step_checkpoints(self.folder)[: -self.keep_last]:
            old.unlink()
