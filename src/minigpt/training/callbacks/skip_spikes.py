"""Skip optimizer steps whose gradient is far larger than those before."""

import logging
import math
import statistics
from collections import deque
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn

from minigpt.bounds import PositiveFloat, PositiveInt
from minigpt.training.module import full_tensor
from minigpt.training.terminal import console, unmuted

log = logging.getLogger("minigpt")


class SkipSpikes(Callback):
    """Skips a step whose gradient norm is `sigma` standard deviations above the mean of the last `window` steps.

    One bad batch can undo hundreds of steps (PaLM, arXiv 2204.02311, section 5.1; the rule is OLMo's). Spikes count in
    the window too, so that a run whose gradients grow for good continues. It reads the norm in every step, for which a
    GPU has to synchronize.

    Args:
        sigma: how far above the mean a norm may be, in standard deviations.
        window: steps over which mean and deviation are taken; none is skipped before half of them are done.

    Attributes:
        skipped: number of skipped steps.
    """

    def __init__(self, *, sigma: PositiveFloat, window: PositiveInt) -> None:
        self.sigma = sigma
        self.norms: deque[float] = deque(maxlen=window)
        self.skipped = 0

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self.norms), "skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        norms, skipped = state_dict["norms"], state_dict["skipped"]
        if not all(isinstance(norm, float) and math.isfinite(norm) for norm in norms) or not isinstance(skipped, int):
            raise ValueError("norms must be finite numbers, and skipped a count")
        self.norms = deque(norms, maxlen=self.norms.maxlen)
        self.skipped = skipped

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = full_tensor(nn.utils.get_total_norm(gradients)).item()
        if not math.isfinite(norm):
            return  # `LanguageModel.refuse_non_finite` stops such a run
        if self.is_spike(norm):
            self.skipped += 1
            step = trainer.global_step + 1
            for parameter in pl_module.parameters():
                parameter.grad = None  # a parameter without a gradient is neither updated nor decayed
            if trainer.is_global_zero:
                log.warning("skipped step %d: gradient norm %.4g", step, norm)
                with unmuted():
                    console.print(f"[yellow]skipped step {step}[/]: gradient norm {norm:.4g}")
            for logger in trainer.loggers:
                logger.log_metrics({"optim/skipped_steps": self.skipped}, step=step)
        self.norms.append(norm)

    def is_spike(self, norm: float) -> bool:
        """Whether a norm is too far above those in the window."""
        if len(self.norms) < (self.norms.maxlen or 0) // 2:
            return False
        return norm > statistics.fmean(self.norms) + self.sigma * statistics.pstdev(self.norms)
