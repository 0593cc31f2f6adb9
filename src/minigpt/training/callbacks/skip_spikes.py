"""Leave out a step whose gradient is far larger than those before it."""

import logging
import math
import statistics
from collections import deque
from typing import Any

import torch
from lightning import Callback, LightningModule
from torch import nn

from minigpt.training.module import whole
from minigpt.training.terminal import console
from minigpt.training.trainer import Trainer

log = logging.getLogger("minigpt")


class SkipSpikes(Callback):
    """Drops the gradient of a step whose norm is `sigma` standard deviations above the mean of the last `window`.

    One bad batch can undo hundreds of steps (PaLM, arXiv 2204.02311, section 5.1; the rule is OLMo's). Spikes count for
    the window too, so that a run whose gradients grow for good goes on. It looks at the norm in every step, for which a
    GPU has to wait.

    Args:
        sigma: how far above the mean a norm may be.
        window: steps that the mean and the deviation are taken over; none is left out before half of them are done.

    Attributes:
        skipped: steps that were left out.
    """

    def __init__(self, *, sigma: float, window: int) -> None:
        self.sigma = sigma
        self.norms: deque[float] = deque(maxlen=window)
        self.skipped = 0

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self.norms), "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.norms.extend(state_dict["norms"])
        self.skipped = state_dict["skipped"]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = whole(nn.utils.get_total_norm(gradients)).item()
        if not math.isfinite(norm):
            return  # the module stops such a run
        if self.is_spike(norm):
            self.skipped += 1
            step = trainer.global_step + 1
            for parameter in pl_module.parameters():
                parameter.grad = None  # what has no gradient is neither moved nor decayed
            if trainer.is_global_zero:
                log.warning("skipped step %d: gradient norm %.4g", step, norm)
                console.print(f"[yellow]skipped step {step}[/]: gradient norm {norm:.4g}")
            for logger in trainer.loggers:
                logger.log_metrics({"optim/skipped_steps": self.skipped}, step=step)
        self.norms.append(norm)

    def is_spike(self, norm: float) -> bool:
        """Whether a norm is too far above those in the window."""
        if len(self.norms) < (self.norms.maxlen or 0) // 2:
            return False
        return norm > statistics.fmean(self.norms) + self.sigma * statistics.pstdev(self.norms)
