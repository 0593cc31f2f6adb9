"""Save a run as it goes: by step, the best so far, the last."""

import math
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningModule
from lightning import Trainer as LightningTrainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from minigpt.bounds import PositiveInt, Steps
from minigpt.runs.checkpoint_io import AtomicCheckpointIO, check_space, link
from minigpt.runs.directory import BEST, CHECKPOINTS, step_checkpoints, step_of
from minigpt.runs.run import Run
from minigpt.training.module import LanguageModel, optimizer_step_is_done


class Checkpoints(Checkpoint):
    """`step_<n>.ckpt` every few steps, `last.ckpt` for the newest of them, `best.ckpt` for the lowest validation loss.

    Lightning calls it after all other callbacks, whose state a checkpoint holds too.

    Args:
        run: whose checkpoints these are.
        every_n_steps: optimizer steps between two checkpoints; None saves at each validation.
        keep_last_n: how many `step_<n>.ckpt` to keep; with two, one is left when the newest is damaged.

    Attributes:
        best_loss, best_step: the lowest validation loss [nats per token] and its step; inf and None before the first.
    """

    def __init__(self, *, run: Run, every_n_steps: Steps | None, keep_last_n: PositiveInt) -> None:
        self.run = run
        self.every_n_steps = every_n_steps
        self.keep_last_n = keep_last_n
        self.best_loss = math.inf
        self.best_step: int | None = None
        self.saved_step: int | None = None
        self.folder = Path()

    def state_dict(self) -> dict[str, Any]:
        return {"best_loss": self.best_loss, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        loss, step = state_dict["best_loss"], state_dict["best_step"]
        if not isinstance(loss, float) or math.isnan(loss) or not isinstance(step, int | None):
            raise ValueError("best_loss must be a number, and best_step a step or null")
        self.best_loss, self.best_step = loss, step

    def check_space(self, checkpoint_bytes: int) -> None:
        """Raises ValueError when the disk has no room: for those that are kept, the best one, and one being written."""
        if self.run.directory is not None:
            check_space(self.run.directory, checkpoint_bytes, self.keep_last_n + 2)

    def setup(self, trainer: LightningTrainer, pl_module: LightningModule, stage: str) -> None:
        # Rank 0 alone knows the run directory; a sharded checkpoint is written by all ranks.
        directory = trainer.strategy.broadcast(self.run.directory)
        assert directory is not None
        self.folder = directory / CHECKPOINTS

    def on_fit_start(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        # A run that was killed between a checkpoint and its other names gets them when it is resumed.
        if trainer.is_global_zero and trainer.ckpt_path is not None:
            path = Path(trainer.ckpt_path)
            self.update_links(path, is_best=self.best_step == step_of(path))

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest validation loss."""
        return self.folder / BEST

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.ckpt"

    def on_train_batch_end(
        self,
        trainer: LightningTrainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        # Where a validation follows, as after the last step, its result belongs in the checkpoint.
        validates = step >= trainer.max_steps or step % validation_interval(trainer) == 0
        if optimizer_step_is_done(trainer, batch_idx) and not validates and self.should_save(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics["val/loss"].item()
        improved = loss < self.best_loss
        if improved:
            self.best_loss, self.best_step = loss, trainer.global_step
        # Saving is collective, so every rank must take the same branch.
        if self.should_save(trainer):
            self.save(trainer, is_best=improved)
        elif improved:
            trainer.save_checkpoint(self.best)

    def should_save(self, trainer: LightningTrainer) -> bool:
        """Whether this step is to be saved."""
        return trainer.global_step % (self.every_n_steps or validation_interval(trainer)) == 0

    def on_train_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        if self.saved_step != trainer.global_step:
            self.save(trainer)
        checkpoint_io(trainer).finish()

    def save(self, trainer: LightningTrainer, is_best: bool = False) -> None:
        """Write `step_<n>.ckpt`, link `last.ckpt` (and `best.ckpt`) to it, and delete the oldest."""
        module = trainer.lightning_module
        assert isinstance(module, LanguageModel)
        module.refuse_non_finite()
        for logger in trainer.loggers:  # what the checkpoint continues from has been written there
            logger.save()
        path = self.folder / f"step_{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        self.saved_step = trainer.global_step
        if trainer.is_global_zero:
            checkpoint_io(trainer).then(partial(self.update_links, path, is_best))

    def update_links(self, path: Path, is_best: bool) -> None:
        """Give a written checkpoint its other names."""
        link(path, self.last)
        if is_best:
            link(path, self.best)
        for old in step_checkpoints(self.folder)[: -self.keep_last_n]:
            old.unlink()


def validation_interval(trainer: LightningTrainer) -> int:
    """Optimizer steps between two validations; Lightning counts micro-batches."""
    assert isinstance(trainer.val_check_interval, int)
    return trainer.val_check_interval // trainer.accumulate_grad_batches


def checkpoint_io(trainer: LightningTrainer) -> AtomicCheckpointIO:
    """The plugin that writes the files."""
    plugin = trainer.strategy.checkpoint_io
    assert isinstance(plugin, AtomicCheckpointIO)
    return plugin
