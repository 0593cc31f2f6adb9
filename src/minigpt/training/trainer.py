"""Lightning's Trainer with the few settings that miniGPT fixes, and names resolved for the device at hand."""

import inspect
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning
import torch
from annotated_types import Gt, Le
from lightning import Callback
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from minigpt.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Precision, Steps
from minigpt.devices import find_device, resolve_precision
from minigpt.runs.checkpoint_io import AtomicCheckpointIO
from minigpt.runs.run import Run
from minigpt.training.processes import die_with_parent

for package in ("lightning.pytorch", "lightning.fabric"):  # no tips, no list of the accelerators that are not there
    logging.getLogger(package).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning 2.6.6 under torch 2.13
# With a minimum Lightning goes on after a signal, and with a limit it begins again with the first batch.
REFUSED = dict.fromkeys(("min_epochs", "min_steps", "limit_train_batches", "gradient_clip_algorithm"))


class Trainer(lightning.Trainer):
    """`lightning.Trainer` that counts in optimizer steps. Its other arguments have their own names.

    Args:
        max_steps: optimizer steps of the run.
        accelerator: auto, cpu, gpu, cuda or mps.
        devices: how many devices of this machine, their indices, or auto for all of them (one CPU process).
        strategy: auto (DDP when there are several devices), ddp, fsdp, or another name or object that Lightning knows.
        precision: auto, or the name of a Lightning precision.
        accumulate_grad_batches: micro-batches of one step; the sequences of the step stay the same.
        val_every_n_steps: optimizer steps between two validations.
        limit_val_batches: batches of each validation, which is then not exact; None for all.
        overfit_batches: train on the first batches alone, again and again; 0 for all.
        timeout_s: seconds that ranks wait for each other before the run fails.
        async_save: write checkpoints in a background thread, which costs the memory of one copy of the state.
        run: the run that is resumed, whose checkpoint has been loaded.
        callbacks, logger: as of `lightning.Trainer`, as lists.

    Raises:
        ValueError: for devices that the machine does not have, or options that do not go together.
    """

    # More than 10 arguments: they are the options of conf/trainer, by Lightning's own names.
    def __init__(
        self,
        *,
        max_steps: Steps,
        accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"],
        devices: PositiveInt | list[int] | Literal["auto"],
        strategy: str | Strategy,
        precision: Precision,
        accumulate_grad_batches: PositiveInt,
        val_every_n_steps: Steps,
        timeout_s: Annotated[float, Gt(0), Le(10**9)],
        async_save: bool = True,
        run: Run | None = None,
        callbacks: Sequence[Callback] = (),
        logger: Sequence[Logger] = (),
        num_nodes: PositiveInt = 1,
        log_every_n_steps: Steps = 50,
        gradient_clip_val: PositiveFloat | None = None,
        limit_val_batches: PositiveInt | None = None,
        overfit_batches: NonNegativeInt = 0,
        **options: Any,
    ) -> None:
        die_with_parent()
        device_type = find_device(accelerator).type
        count = count_devices(device_type, devices)
        fixed: dict[str, Any] = REFUSED | {
            "max_epochs": -1,
            "val_check_interval": val_every_n_steps * accumulate_grad_batches,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        }
        if conflicts := sorted(fixed.keys() & options):
            raise ValueError(f"trainer.{conflicts[0]} is set by miniGPT itself: leave it out")
        loaded = {} if run is None or run.plan is None else {run.plan.checkpoint: run.plan.content}
        try:
            super().__init__(
                max_steps=max_steps,
                accelerator=device_type,
                devices=devices if isinstance(devices, list) else count,
                num_nodes=num_nodes,
                strategy=make_strategy(strategy, count * num_nodes, timeout_s),
                precision=resolve_precision(precision, device_type),  # pyright: ignore[reportArgumentType]
                accumulate_grad_batches=accumulate_grad_batches,
                log_every_n_steps=log_every_n_steps,
                gradient_clip_val=gradient_clip_val,
                limit_val_batches=limit_val_batches,
                overfit_batches=overfit_batches,
                plugins=[*make_plugins(async_save, loaded), *options.pop("plugins", [])],
                callbacks=list(callbacks),
                logger=list(logger),
                **fixed,
                **options,
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error


def count_devices(device_type: str, devices: int | list[int] | Literal["auto"]) -> int:
    """How many devices of this machine a run uses.

    Raises:
        ValueError: the machine has fewer.
    """
    cpus = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    present = {"cuda": torch.cuda.device_count, "mps": lambda: 1}.get(device_type, lambda: cpus)()
    if devices == "auto":
        return 1 if device_type == "cpu" else present  # one process uses all cores
    indices = devices if isinstance(devices, list) else [*range(min(devices, present + 1))]
    if not indices or len(set(indices)) < len(indices) or not set(indices) <= set(range(present)):
        raise ValueError(
            f"trainer.devices={devices}, but this machine has {present} {device_type} device(s), each to be used once"
        )
    return len(indices)


def make_plugins(async_save: bool, loaded: Mapping[Path, dict[str, Any]]) -> list[Any]:
    """How checkpoints are written, and on Slurm no requeueing by Lightning, which knows nothing of our checkpoints."""
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return [AtomicCheckpointIO(async_save=async_save, loaded=loaded), *slurm]


def make_strategy(strategy: str | Strategy, devices: int, timeout_s: float) -> Strategy | str:
    """The Lightning strategy for a name; the model's buffers are constants, so nothing needs to broadcast them."""
    timeout = timedelta(seconds=timeout_s)
    if strategy == "fsdp":
        # One complete file per checkpoint, as with every other strategy, so that all commands can read it.
        return ModelParallelStrategy(
            data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout
        )
    if strategy == "ddp" or (strategy == "auto" and devices > 1):
        # torch 2.13 renamed the option; the old name still works there, with a warning.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {sync_buffers: False}
        return DDPStrategy(gradient_as_bucket_view=True, timeout=timeout, **options)
    return strategy
