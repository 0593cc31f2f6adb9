"""Causal attention with sparser masks, bounded scores or mixed values. Shapes: see attention.py."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.bounds import PositiveFloat, PositiveInt
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.forward_context import ForwardContext


class SlidingWindowAttention(CausalSelfAttention):
    """Each position attends to the newest `window` positions, itself included (arXiv 2004.05150, section 3.1).

    Stacked layers reach further. The mask does not reduce the cost: masked scores are computed too.

    Raises:
        ValueError: `window` is less than 1.
    """

    def __init__(self, *, window: PositiveInt, **options: Any) -> None:
        if window < 1:
            raise ValueError(f"model.attention.window={window} must be at least 1")
        self.window = window
        super().__init__(**options)

    def make_mask(self, block_size: int) -> Tensor:
        return additive_mask(distances(block_size) < self.window)


class StridedAttention(CausalSelfAttention):
    """Each position attends to the newest `stride` and to every stride-th one (Sparse Transformer, arXiv 1904.10509).

    All heads attend to both, as in the paper's merged head, so that any number of heads will do.

    Raises:
        ValueError: `stride` is less than 1.
    """

    def __init__(self, *, stride: PositiveInt, **options: Any) -> None:
        if stride < 1:
            raise ValueError(f"model.attention.stride={stride} must be at least 1")
        self.stride = stride
        super().__init__(**options)

    def make_mask(self, block_size: int) -> Tensor:
        distance = distances(block_size)
        return additive_mask((distance < self.stride) | (distance % self.stride == 0))


class SoftcapAttention(CausalSelfAttention):
    """Scores are softcap * tanh(score / softcap) before the mask (Gemma 2, arXiv 2408.00118, section 2).

    Raises:
        ValueError: `fused` is True; the fused kernel has no softcap.
    """

    def __init__(self, *, softcap: PositiveFloat = 50.0, fused: bool | None = None, **options: Any) -> None:
        if fused:
            raise ValueError("attention with a softcap has no fused kernel: leave out model.attention.fused")
        super().__init__(fused=False, **options)
        self.softcap = softcap

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return self.softcap * torch.tanh(super().scores(q, k) / self.softcap)


class ValueResidualAttention(CausalSelfAttention):
    """Values are share * own + (1 - share) * first layer's, with a learned share (arXiv 2410.17897)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.share = nn.Parameter(torch.full((1,), 0.5))

    def qkv(self, x: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().qkv(x, context)
        if context.first_values is None:  # in the first layer, whose share has no effect and a gradient of 0
            context.first_values = v
        share = self.share.to(v.dtype)
        return q, k, share * v + (1 - share) * context.first_values


def distances(block_size: int) -> Tensor:
    """Return the distance of each key behind each query, [T, S]; negative for keys ahead."""
    positions = torch.arange(block_size)
    return positions[:, None] - positions


def additive_mask(allowed: Tensor) -> Tensor:
    """Return a mask [T, S] that is 0 for the keys that are allowed and not ahead, else -inf."""
    return torch.full(allowed.shape, -math.inf).masked_fill(allowed.tril(), 0.0)
