"""Measure a run (losses, gradient norm, speed) and write every metric to every logger."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from minigpt.data.loaders import TrainLoader
from minigpt.model.size import flops_per_token
from minigpt.training.hardware import peak_flops
from minigpt.training.module import LanguageModel, full_tensor, get_datamodule, is_logged, optimizer_step_is_done

log = logging.getLogger("minigpt")


class Metrics(Callback):
    """Collects on the device and reads only every `log_every_n_steps` steps, so that a GPU rarely has to synchronize.

    Attributes:
        train_s: seconds spent in training steps, without validation and what follows it (samples, saving the best).
        loss, tokens_per_s: of the newest steps that were read.
        val: the metrics of the newest validation.
    """

    def __init__(self) -> None:
        self.train_s = 0.0
        self.val: dict[str, float] = {}
        self.loss: float | None = None
        self.tokens_per_s: float | None = None
        self.peak_name: str | None = None
        self._peak: float | None = None
        self._flops = 0
        self._lr = 0.0
        self._loss: Tensor | float = 0.0
        self._steps = 0
        self._wait_s = 0.0
        self._mark = 0.0
        self._pause: float | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"train_s": self.train_s, "val": dict(self.val)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        train_s, val = state_dict["train_s"], dict(state_dict["val"])
        if not all(isinstance(value, float) for value in (train_s, *val.values())) or not 0 <= train_s < math.inf:
            raise ValueError("train_s must be seconds, and val numbers by their names")
        self.train_s, self.val = train_s, val

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        peak = peak_flops(pl_module.device, trainer.precision)
        self._peak, self.peak_name = peak if peak is not None else (None, None)
        assert isinstance(pl_module, LanguageModel)
        self._flops = flops_per_token(pl_module.model, get_datamodule(trainer).block_size)
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._pause is not None:  # a validation, and what callbacks do after it, is over
            self._mark += time.perf_counter() - self._pause
            self._pause = None
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(outputs, Mapping)  # see `LanguageModel.training_step`
        self._loss = self._loss + outputs["reported"] / trainer.accumulate_grad_batches
        if not optimizer_step_is_done(trainer, batch_idx):
            return
        self._steps += 1
        step = trainer.global_step
        if is_logged(trainer, step) or step == trainer.max_steps or trainer.should_stop:
            self.write(trainer, step, self.measure(trainer, pl_module))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.val = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        self.write(trainer, trainer.global_step, self.val)

    def measure(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """The metrics of the steps since the last call. Synchronizes with the device."""
        assert isinstance(pl_module, LanguageModel) and isinstance(self._loss, Tensor)
        assert pl_module.grad_norm is not None
        self.loss = float(trainer.strategy.reduce(self._loss / self._steps, reduce_op="mean"))
        data = get_datamodule(trainer)
        seconds = time.perf_counter() - self._mark
        self.train_s += seconds
        tokens_per_step = data.batch_size * data.block_size
        tokens = trainer.global_step * tokens_per_step
        self.tokens_per_s = self._steps * tokens_per_step / seconds
        metrics = {
            "train/loss": self.loss,
            "optim/lr": self._lr,
            "optim/grad_norm": full_tensor(pl_module.grad_norm).item(),
            "progress/tokens": tokens,
            "progress/epoch": tokens / data.tokens_per_epoch,
            "throughput/tokens_per_s": self.tokens_per_s,
            "throughput/step_ms": 1000 * seconds / self._steps,
            "throughput/data_wait_ms": 1000 * self.data_wait(trainer) / self._steps,
        }
        if self._peak is not None:
            metrics["throughput/mfu"] = self.tokens_per_s * self._flops / (self._peak * trainer.world_size)
        metrics |= memory_gib(pl_module.device)
        self._loss, self._steps, self._mark = 0.0, 0, time.perf_counter()
        return metrics

    def data_wait(self, trainer: Trainer) -> float:
        """Seconds that the training has waited for batches since the last call."""
        before, loader = self._wait_s, trainer.train_dataloader
        self._wait_s = loader.wait_s if isinstance(loader, TrainLoader) else 0.0
        return self._wait_s - before

    def write(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        """Hand metrics to every logger, and to the log file."""
        log.info("step %d  %s", step, "  ".join(f"{name} {value:.6g}" for name, value in metrics.items()))
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)


def memory_gib(device: torch.device) -> dict[str, float]:
    """The most memory that was in use: the device's on CUDA, the process's elsewhere; nothing where nobody tells it."""
    if device.type == "cuda":
        used, reserved = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        return {"memory/max_gib": used / 2**30, "memory/max_reserved_gib": reserved / 2**30}
    if sys.platform == "win32":
        return {}
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return {"memory/max_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30}
