"""End a run well: validate the last step; when told to stop, finish the step, save, exit."""

import signal
import sys
import threading
from types import FrameType
from typing import Any, TextIO

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from minigpt.runs.slurm import job_id
from minigpt.streams import Output
from minigpt.training.callbacks.stop_notice import StopNotice
from minigpt.training.module import is_logged, optimizer_step_is_done
from minigpt.training.terminal import console, unmuted

# None where the system lacks them, as Windows does.
PREEMPTION: int | None = getattr(signal, "SIGUSR1", None)
HANGUP: int | None = getattr(signal, "SIGHUP", None)
SIGPIPE = 13


class GracefulStop(Callback):
    """On SIGINT, SIGTERM or SIGHUP, finishes the step and ends the run as if it were done.

    A second SIGINT ends it at once. SIGUSR1 does the same in a Slurm job, where it announces that the job will be
    preempted, and so does a closed pipe at the standard output, which counts as SIGPIPE. A SIGHUP that is ignored, as
    by `nohup`, stays ignored.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._output: TextIO | None = None
        self._previous: dict[int, Any] = {}
        self._notice: StopNotice | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._output = sys.stdout  # of `fit`; a progress bar will put its own in front of it
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._previous[number] = signal.signal(number, self.receive)
            if trainer.is_global_zero:
                self._notice = StopNotice(set(self._previous), say_that_it_stops)

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
        if self.received is None and isinstance(self._output, Output) and self._output.is_broken_pipe:
            self.received = SIGPIPE
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
        if self._notice is not None:
            self._notice.close()
            self._notice = None


def stop_signals() -> list[int]:
    """Return the signals that end a run, as far as this system has them."""
    found: list[int] = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
        found.append(HANGUP)
    if PREEMPTION is not None and job_id() is not None:
        found.append(PREEMPTION)
    return found


def say_that_it_stops(number: int) -> None:
    """One line, above the progress bar if there is one."""
    again = "; Ctrl-C again ends without saving" if number == signal.SIGINT else ""
    with unmuted():
        console.print(f"{signal.Signals(number).name}: finishing this step and saving{again}", soft_wrap=True)
