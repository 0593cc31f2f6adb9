"""Attention that sees fewer keys, scores them otherwise, or mixes in other values. Shapes: those of attention.py."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.context import Context


class SlidingWindowAttention(CausalSelfAttention):
    """Every position looks at itself and the `window` - 1 before it (arXiv 2004.05150, section 3.1).

    Layers reach further together. Only what is learned changes: masked scores are computed all the same.

    Raises:
        ValueError: for a window below 1.
    """

    def __init__(self, *, window: int, **options: Any) -> None:
        if window < 1:
            raise ValueError(f"a window of {window} positions sees nothing: it must be at least 1")
        self.window = window
        super().__init__(**options)

    def make_mask(self, block_size: int) -> Tensor:
        return keep(distances(block_size) < self.window)


class StridedAttention(CausalSelfAttention):
    """Every position looks at the newest `stride` and at every stride-th before (Sparse Transformer, arXiv 1904.10509).

    All heads look at both, as in the merged head of the paper, which leaves the number of heads free.

    Raises:
        ValueError: for a stride below 1.
    """

    def __init__(self, *, stride: int, **options: Any) -> None:
        if stride < 1:
            raise ValueError(f"a stride must be at least 1, not {stride}")
        self.stride = stride
        super().__init__(**options)

    def make_mask(self, block_size: int) -> Tensor:
        distance = distances(block_size)
        return keep((distance < self.stride) | (distance % self.stride == 0))


class SoftcapAttention(CausalSelfAttention):
    """Scores bounded softly, cap * tanh(score / cap), before the mask (Gemma 2, arXiv 2408.00118, section 2).

    Raises:
        ValueError: when the fused kernel is asked for, which knows no cap.
    """

    def __init__(self, *, cap: float = 50.0, fused: bool | None = None, **options: Any) -> None:
        if fused:
            raise ValueError("attention with a softcap has no fused kernel: leave model.attention.fused out")
        super().__init__(fused=False, **options)
        self.cap = cap

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return self.cap * torch.tanh(super().scores(q, k) / self.cap)


class ValueResidualAttention(CausalSelfAttention):
    """Values are share * own + (1 - share) * the first layer's, with a learned share (arXiv 2410.17897)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.share = nn.Parameter(torch.full((1,), 0.5))

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().heads(x, context)
        if context.first_values is None:  # then the share changes nothing, and its gradient is 0
            context.first_values = v
        share = self.share.to(v.dtype)
        return q, k, share * v + (1 - share) * context.first_values


def distances(block_size: int) -> Tensor:
    """How far a key lies behind a query, [T, S]; below 0 ahead of it."""
    positions = torch.arange(block_size)
    return positions[:, None] - positions


def keep(seen: Tensor) -> Tensor:
    """The mask [T, S] of those keys alone that are seen, and not ahead."""
    return torch.full(seen.shape, -math.inf).masked_fill(seen.tril(), 0.0)
