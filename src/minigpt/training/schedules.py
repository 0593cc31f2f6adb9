"""Learning-rate schedules: step -> what the optimizer's learning rate is multiplied by.

All are 1 at their peak, so `optimizer.lr` always is the peak. `step` counts from 0; the first update uses step 0.
"""

import math


def warmup(step: int, warmup_steps: int) -> float:
    """Linear from 1 / (w + 1) to 1 over the first `warmup_steps` steps: the first update is small and not zero."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def constant(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Warm up, then stay."""
    return warmup(step, warmup_steps)


def cosine(step: int, *, total_steps: int, warmup_steps: int, final: float) -> float:
    """Warm up, then half a cosine down to `final` at `total_steps` (arXiv 1608.03983)."""
    progress = min(1.0, max(0, step - warmup_steps) / max(1, total_steps - warmup_steps))
    return warmup(step, warmup_steps) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def wsd(step: int, *, total_steps: int, warmup_steps: int, decay_fraction: float, final: float) -> float:
    """Warm up, stay, and go linearly down to `final` over the last `decay_fraction` of the run (arXiv 2405.18392)."""
    remaining = (total_steps - step) / max(1.0, decay_fraction * total_steps)
    return warmup(step, warmup_steps) * (final + (1 - final) * min(1.0, max(0.0, remaining)))


def noam(step: int, *, total_steps: int, warmup_steps: int) -> float:
    """Up linearly, then down with 1 / sqrt(step): arXiv 1706.03762, equation 3, divided by its peak.

    The paper's own rate for width d and w warm-up steps is `optimizer.lr` = 1 / sqrt(d * w).
    """
    count = step + 1
    return min(count / max(1, warmup_steps), math.sqrt(max(1, warmup_steps) / count))
