"""End a run well: validate the last step; when told to stop, finish the step, save, leave."""

import signal
import threading
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from minigpt.runs.slurm import job_id


class GracefulStop(Callback):
    """On SIGINT or SIGTERM the step is finished, then the run ends as if it were done; a second SIGINT ends it at once.

    So it does on SIGUSR1 in a Slurm job, which is how one is told that it will be preempted.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR1] if job_id() is not None else [])):
                self._previous[number] = signal.signal(number, self.receive)

    def receive(self, number: int, frame: Any) -> None:
        """Note the signal; from now on it has its usual effect again."""
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning would end by itself, but without validating the last step
            return
        if trainer.world_size > 1:
            # All processes must leave at the same step. GPUs agree where Metrics makes them wait anyway.
            if pl_module.device.type != "cpu" and trainer.global_step % trainer.log_every_n_steps:
                return
            received = torch.tensor(self.received or 0, device=pl_module.device)
            self.received = int(trainer.strategy.reduce(received, reduce_op="max")) or None
        if self.received is not None:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # Lightning validates before it stops; whoever sent the signal does not wait

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
