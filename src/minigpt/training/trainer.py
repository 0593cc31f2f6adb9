"""Lightning's Trainer with the few settings that miniGPT fixes, and names resolved for the device at hand."""

import inspect
import logging
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from minigpt.inference.load import find_device
from minigpt.inference.precision import resolve_precision
from minigpt.runs.checkpoints import AtomicCheckpointIO
from minigpt.training.processes import end_with_parent

for package in ("lightning.pytorch", "lightning.fabric"):  # no tips, no list of the accelerators that are not there
    logging.getLogger(package).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning 2.6.6 under torch 2.13


class Trainer(lightning.Trainer):
    """`lightning.Trainer` that counts in optimizer steps. Other arguments of it go by their own names.

    Args:
        max_steps: optimizer steps of the run.
        accelerator: auto, cpu, cuda or mps.
        devices: how many devices of this machine.
        strategy: auto (one process a device, gradients averaged, when there are several), ddp, fsdp.
        precision: auto, or the name of a Lightning precision.
        accumulate_grad_batches: micro-batches that make one step; the rows of the step stay the same.
        val_every_n_steps: optimizer steps between two validations.
        timeout_s: seconds that several devices wait for each other before the run fails.

    Raises:
        ValueError: for devices that the machine does not have, or options that do not go together.
    """

    def __init__(
        self,
        *,
        max_steps: int,
        accelerator: str,
        devices: int,
        strategy: str,
        precision: str,
        accumulate_grad_batches: int,
        val_every_n_steps: int,
        timeout_s: float,
        **lightning_options: Any,
    ) -> None:
        self.files = AtomicCheckpointIO()
        end_with_parent()
        accelerator = find_device(accelerator).type
        check_devices(accelerator, devices)
        # Lightning's own way to requeue a job knows neither our checkpoints nor our run directory.
        slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
        options: dict[str, Any] = {
            "max_steps": max_steps,
            "max_epochs": -1,
            "accelerator": accelerator,
            "devices": devices,
            "strategy": make_strategy(strategy, devices * lightning_options.get("num_nodes", 1), timeout_s),
            "precision": resolve_precision(precision, accelerator),
            "accumulate_grad_batches": accumulate_grad_batches,
            "val_check_interval": val_every_n_steps * accumulate_grad_batches,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "plugins": [self.files, *slurm],
        }
        if double := sorted(options.keys() & lightning_options):
            raise ValueError(f"trainer.{double[0]} is set by miniGPT itself: leave it out")
        try:
            super().__init__(**options, **lightning_options)
        except (MisconfigurationException, TypeError) as error:
            raise ValueError(f"trainer: {str(error).splitlines()[0]}") from error
        self.val_every_n_steps = val_every_n_steps
        self.run_directory: Path | None = None  # only rank 0 has one


def check_devices(accelerator: str, devices: int) -> None:
    """Raises ValueError when the machine has fewer devices."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = {"cuda": torch.cuda.device_count, "mps": lambda: 1}.get(accelerator, lambda: cpus)()
    if devices > count:
        raise ValueError(f"trainer.devices={devices}, but this machine has {count} {accelerator} device(s)")


def make_strategy(strategy: str, devices: int, timeout_s: float) -> Strategy | str:
    """The Lightning strategy for a name; the model's buffers are constants, so nothing needs to broadcast them."""
    timeout = timedelta(seconds=timeout_s)
    if strategy == "fsdp":
        # One whole file a checkpoint, as with every other strategy, so that all doors can read it.
        return ModelParallelStrategy(
            data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout
        )
    if strategy == "ddp" or (strategy == "auto" and devices > 1):
        # torch 2.13 renamed the option; the old name still works there, with a warning.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        return DDPStrategy(gradient_as_bucket_view=True, timeout=timeout, **{sync_buffers: False})
    return strategy
