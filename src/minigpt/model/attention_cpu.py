"""Causal attention in chunks of queries, for CPUs.

Shapes: B batch, T query positions, S key positions, H heads, C head_dim.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CHUNK = 128  # queries per chunk; measured in docs/notebook.md


def is_long(q: Tensor) -> bool:
    """Whether queries [B, H, T, C] are more than one chunk."""
    return q.shape[2] > CHUNK


def chunked_attention(attention: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Apply a causal attention function to `CHUNK` queries at a time (arXiv 2112.05682).

    Each chunk skips the keys that lie ahead of all its queries. This saves half of the products of a long sequence and
    keeps the scores in the processor's cache. A CPU trains in a quarter of the fused kernel's time at T = 64, and in
    less than that at T = 8,192 (docs/notebook.md).

    Args:
        attention: maps q, k, v of any T and S to [B, H, T, C]; its queries are the newest T of the S positions.
        q: queries [B, H, T, C].
        k, v: keys and values [B, H, S, C].
    """
    ends = [*range(k.shape[2] - q.shape[2] + CHUNK, k.shape[2], CHUNK), k.shape[2]]
    chunks = zip(q.split(CHUNK, dim=2), PrefixSlices.apply(k, ends), PrefixSlices.apply(v, ends), strict=True)
    return torch.cat([attention(*chunk) for chunk in chunks], dim=2)


class PrefixSlices(torch.autograd.Function):
    """x[:, :, :end] for several increasing ends, the last of which is all of x [B, H, S, C].

    The backward pass accumulates into one tensor. Autograd would allocate one as large as x for each slice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: list[int]) -> tuple[Tensor, ...]:
        ctx.ends = ends
        return tuple(x[:, :, :end] for end in ends)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        """Sum of the gradients, each padded with zeros to S."""
        total = grad_outputs[-1].clone()
        for end, gradient in zip(ctx.ends[:-1], grad_outputs, strict=False):
            total[:, :, :end] += gradient
        return total, None
