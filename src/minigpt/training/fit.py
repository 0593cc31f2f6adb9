"""Train, and leave a summary whatever happens."""

import logging
import sys
import traceback

import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from minigpt.data.datamodule import TextDataModule
from minigpt.model.size import check_memory, inference_bytes, training_bytes
from minigpt.runs.run import Run
from minigpt.runs.slurm import requeue
from minigpt.streams import lasting_output
from minigpt.training.callbacks import find
from minigpt.training.callbacks.checkpoint_callback import Checkpoints
from minigpt.training.callbacks.graceful_stop import PREEMPTION, GracefulStop
from minigpt.training.callbacks.samples import Samples
from minigpt.training.module import VAL_METRICS, LanguageModel
from minigpt.training.processes import kill_other_ranks
from minigpt.training.restore import check_restorable
from minigpt.training.run_report import best_loss, log_run_end, log_run_start
from minigpt.training.trainer import Trainer
from minigpt.training.wandb_logger import WandB

log = logging.getLogger("minigpt")
LIGHTNING_CODES = {SIGTERMException: 143, SystemExit: 130}  # of how it ends `fit`


@lasting_output()
def fit(trainer: Trainer, module: LanguageModel, data: TextDataModule, run: Run) -> float | None:
    """Train to `max_steps`, from the start or from the run's checkpoint; return the lowest validation loss.

    Ends the process with 128 and the signal's number after one that `GracefulStop` answers (a checkpoint is saved, and
    a Slurm job is requeued after SIGUSR1), and with 1 after an error.

    Raises:
        ValueError: the run cannot begin, see `check_run`; nothing has been written then.
    """
    check_run(trainer, module, data)
    run.refuse_changes(module.metadata["fingerprint"])  # which names the option, where the next would name a weight
    if run.plan is not None:
        check_restorable(run.plan, module, trainer)
    run.start(module.metadata["fingerprint"])
    stop, wandb = find(trainer, GracefulStop), find(trainer, WandB)
    assert stop is not None
    status, code, error = "completed", 0, None
    try:
        if run.directory is not None:
            log_run_start(trainer, module, data, run)
        trainer.fit(module, datamodule=data, ckpt_path=None if run.plan is None else run.plan.checkpoint)
        if stop.received is not None:
            status, code = "interrupted", 128 + stop.received
    except SystemExit as exit:  # the answer to a signal before the first step, or to a second one
        code = exit.code if isinstance(exit.code, int) and exit.code > 128 else LIGHTNING_CODES[type(exit)]
        status, error = "interrupted", "interrupted in the middle of a step"
    except Exception as failure:
        status, code, error = "failed", 1, first_line(failure)
        report_failure(failure, run)
    if run.directory is not None:
        try:
            log_run_end(trainer, module, data, run, status, error)
        except OSError as failure:  # the disk may be full; one line has said so by now
            if not code:
                print(f"error: {known_failure(failure, run)}", file=sys.stderr)
            code = code or 1
    if wandb is not None:
        wandb.finish(code)
    if status == "failed":
        kill_other_ranks(trainer)
    if run.directory is not None and stop.received is not None and stop.received == PREEMPTION:
        print(requeue(), file=sys.stderr)
    # Lightning kills the first process when another one exits with an error, so those exit with 0 after a clean stop.
    if code and (run.directory is not None or status == "failed"):
        sys.exit(code)
    return best_loss(trainer)[0]


def check_run(trainer: Trainer, module: LanguageModel, data: TextDataModule) -> None:
    """Raises ValueError where the Trainer, the module, the data and the disk do not fit each other."""
    data.check_divisible(trainer.world_size, trainer.accumulate_grad_batches)
    module.check_trainer(trainer)
    check_callbacks(trainer, module, data)
    if trainer.strategy.root_device.type == "cpu":  # a GPU that is full raises an error, a machine kills a process
        check_batches(trainer, module.model, data)
    if (checkpoints := find(trainer, Checkpoints)) is not None:
        checkpoints.check_space(module.checkpoint_bytes)


def check_callbacks(trainer: Trainer, module: LanguageModel, data: TextDataModule) -> None:
    """Raise ValueError for a callback that this run would fail at its first validation."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  # set by a connector
    for callback in callbacks:
        if isinstance(callback, Samples):
            callback.check(module.model, data)
        if isinstance(callback, EarlyStopping) and callback.strict and callback.monitor not in VAL_METRICS:
            raise ValueError(f"early stopping cannot monitor {callback.monitor!r}: choose {' or '.join(VAL_METRICS)}")


def check_batches(trainer: Trainer, model: nn.Module, data: TextDataModule) -> None:
    """Raise ValueError if a step of all processes of this machine, or a validation batch, does not fit in memory."""
    sizes = {"block_size": data.block_size, "vocab_size": data.corpus.tokenizer.vocab_size}
    tokens = data.batch_size * data.block_size // (trainer.accumulate_grad_batches * trainer.num_nodes)
    processes = trainer.world_size // trainer.num_nodes
    number_bytes = 2 if trainer.precision.startswith("bf16") else 4
    state = (processes - 1) * training_bytes(model, tokens=0, **sizes)
    needed = state + training_bytes(model, tokens=tokens, number_bytes=number_bytes, **sizes)
    check_memory(
        needed,
        f"a training step of {tokens:,} tokens",
        "data.batch_size, model.block_size or model.dim, or set trainer.accumulate_grad_batches=2, 4, ...",
    )
    tokens = min(data.val_batch_size * data.block_size, len(data.corpus.val))
    needed = inference_bytes(model, tokens=tokens, **sizes)
    check_memory(needed, f"a validation batch of {tokens:,} tokens", "data.val_tokens_per_batch")


def report_failure(failure: Exception, run: Run) -> None:
    """Print one line for a failure that is no fault of the program, and the traceback of any other."""
    log.error("%s", traceback.format_exc())
    if (advice := known_failure(failure, run)) is not None:
        print(f"error: {advice}", file=sys.stderr)
    else:
        traceback.print_exc()


def known_failure(failure: Exception, run: Run) -> str | None:
    """What to do about a failure that is no fault of the program; None for any other."""
    if isinstance(failure, FloatingPointError):
        return str(failure)
    if isinstance(failure, MisconfigurationException):
        return f"trainer: {str(failure).splitlines()[0]}"
    if isinstance(failure, OSError):
        return f"{failure.filename or run.directory}: {failure.strerror or failure}; earlier checkpoints are intact"
    if isinstance(failure, torch.OutOfMemoryError) or "can't allocate memory" in str(failure):
        return "out of memory: lower data.batch_size, or split each step with trainer.accumulate_grad_batches=2, 4, ..."
    return None


def first_line(failure: BaseException) -> str:
    """The first line of an error, with its class."""
    return f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"
