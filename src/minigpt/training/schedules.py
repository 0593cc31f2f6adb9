"""Learning-rate schedules: step -> factor of the optimizer's learning rate.

All are 1 at their peak, so `optimizer.lr` is always the peak. `step` counts from 0; the first update uses step 0.
"""

import math
from typing import Annotated

from annotated_types import Ge, Le

from minigpt.bounds import Fraction, WarmupSteps

LRRatio = Annotated[float, Ge(0), Le(1)]


def warmup(step: int, warmup_steps: int) -> float:
    """Linear from 1 / (w + 1) to 1 over the first w = `warmup_steps` steps: the first update is small but not zero."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def constant(step: int, *, total_steps: int, warmup_steps: WarmupSteps) -> float:
    """Linear warm-up, then constant."""
    return warmup(step, warmup_steps)


def cosine(step: int, *, total_steps: int, warmup_steps: WarmupSteps, min_lr_ratio: LRRatio) -> float:
    """Linear warm-up, then half a cosine down to `min_lr_ratio` at `total_steps` (arXiv 1608.03983)."""
    progress = min(1.0, max(0, step - warmup_steps) / max(1, total_steps - warmup_steps))
    return warmup(step, warmup_steps) * (min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def wsd(
    step: int, *, total_steps: int, warmup_steps: WarmupSteps, decay_fraction: Fraction, min_lr_ratio: LRRatio
) -> float:
    """Warm-up, constant, then linear decay to `min_lr_ratio` over the last `decay_fraction` of the run.

    The schedule of arXiv 2405.18392.
    """
    remaining = (total_steps - step) / max(1.0, decay_fraction * total_steps)
    return warmup(step, warmup_steps) * (min_lr_ratio + (1 - min_lr_ratio) * min(1.0, max(0.0, remaining)))


def noam(step: int, *, total_steps: int, warmup_steps: WarmupSteps) -> float:
    """Linear warm-up, then 1 / sqrt(step): arXiv 1706.03762, equation 3, divided by its peak.

    The paper's own rate for width d and w warm-up steps is `optimizer.lr` = 1 / sqrt(d * w).
    """
    count = step + 1
    return min(count / max(1, warmup_steps), math.sqrt(max(1, warmup_steps) / count))
