"""End a run well: validate the last step; when told to stop, finish the step, save, exit."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from minigpt.runs.slurm import job_id
from minigpt.training.module import is_logged, optimizer_step_is_done

PREEMPTION: int | None = getattr(signal, "SIGUSR1", None)  # None on Windows


class GracefulStop(Callback):
    """On SIGINT or SIGTERM, finishes the step and ends the run as if it were done; a second SIGINT ends it at once.

    So does SIGUSR1 in a Slurm job, which announces that the job will be preempted.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *([PREEMPTION] if PREEMPTION and job_id() else [])):
                self._previous[number] = signal.signal(number, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; from now on SIGINT has its usual effect again."""
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        if not optimizer_step_is_done(trainer, batch_idx):
            return
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning would end by itself, but without validating the last step
            return
        if trainer.world_size > 1:
            # All ranks must stop at the same step. GPUs agree where Metrics makes them wait anyway.
            if pl_module.device.type != "cpu" and not is_logged(trainer, trainer.global_step):
                return
            received = torch.tensor(self.received or 0, device=pl_module.device)
            self.received = int(trainer.strategy.reduce(received, reduce_op="max")) or None
        if self.received is not None:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # Lightning validates before it stops, and the sender of the signal waits

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
