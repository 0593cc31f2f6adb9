"""Train, and leave a summary whatever happens."""

import logging
import signal
import sys
import traceback
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from minigpt.runs.run import Run
from minigpt.runs.slurm import requeue
from minigpt.training.module import LanguageModel
from minigpt.training.processes import end_others
from minigpt.training.report import Watch, announce, conclude, find_wandb
from minigpt.training.trainer import Trainer

log = logging.getLogger("minigpt")


def fit(trainer: Trainer, module: LanguageModel, data: Any, run: Run, config: dict[str, Any]) -> float | None:
    """Train to `max_steps`, or on from the run's checkpoint; return the best validation loss.

    Ends the process with 130 after SIGINT, 143 after SIGTERM, 138 after SIGUSR1 in a Slurm job, which is requeued (a
    checkpoint is saved), and 1 after an error.
    """
    trainer.run_directory = run.directory
    watch = Watch(trainer)
    status, code, error = "completed", 0, None
    try:
        if run.directory is not None:
            announce(trainer, module, data, run, config)
        trainer.fit(module, datamodule=data, ckpt_path=run.checkpoint)
        if watch.stop.received is not None:
            status, code = "interrupted", 128 + watch.stop.received
    except SystemExit as stop:  # what Lightning makes of a signal that comes before the first step, or twice
        code = 143 if isinstance(stop, SIGTERMException) else 130
        status, error = "interrupted", "interrupted in the middle of a step"
    except Exception as failure:
        status, code, error = "failed", 1, explain_failure(failure)
        log.error("%s", traceback.format_exc())
        if (advice := known_failure(failure, run)) is not None:
            print(f"error: {advice}", file=sys.stderr)
        else:
            traceback.print_exc()
    if run.directory is not None:
        try:
            conclude(trainer, module, data, run, config, watch, status, error)
        except OSError as failure:  # the disk may be full; one line has said so by now
            if not code:
                print(f"error: {known_failure(failure, run)}", file=sys.stderr)
            code = code or 1
    if (wandb := find_wandb(trainer)) is not None:
        wandb.finish(code)
    if status == "failed":
        end_others(trainer)
    if run.directory is not None and watch.stop.received == signal.SIGUSR1:
        print(requeue(), file=sys.stderr)
    # Lightning kills the first process when another one leaves with an error, so those leave a clean stop with 0.
    if code and (run.directory is not None or status == "failed"):
        sys.exit(code)
    return watch.best()[0]


def known_failure(failure: Exception, run: Run) -> str | None:
    """What to do about a failure that is no fault of the program; None for any other."""
    if isinstance(failure, FloatingPointError):
        return str(failure)
    if isinstance(failure, OSError):
        return f"{failure.filename or run.directory}: {failure.strerror or failure}; earlier checkpoints are intact"
    if isinstance(failure, torch.OutOfMemoryError) or "can't allocate memory" in str(failure):
        return "out of memory: lower data.batch_size, or split each step with trainer.accumulate_grad_batches=2, 4, ..."
    return None


def explain_failure(failure: BaseException) -> str:
    """The first line of an error, with its kind."""
    return f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
