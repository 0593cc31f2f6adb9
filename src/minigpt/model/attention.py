"""Attention, fused and written out: causal, bidirectional, and from a decoder to its encoder.

Shapes: B batch, T query positions, S key positions, D dim, H query heads, K key-value heads, C head_dim.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.model.context import Context
from minigpt.model.dropout import dropout
from minigpt.model.kv_cache import LayerCache
from minigpt.model.norms import rms_norm

CHUNK = 128  # queries that are scored together where attention is causal; measured in docs/notebook.md


class CausalSelfAttention(nn.Module):
    """Every position looks at itself and at those before it (arXiv 1706.03762, section 3.2).

    With fewer key-value heads than query heads it is grouped-query attention (arXiv 2305.13245); with one, multi-query.

    Args:
        dim: model width.
        num_heads: query heads.
        block_size: longest context, in tokens.
        num_kv_heads: key-value heads; as many as query heads when None.
        qk_norm: RMS-normalise queries and keys, which bounds the logits (arXiv 2302.05442).
        bias: add biases to the projections, as GPT-2 does.
        dropout: probability of dropping an attention weight while training.
        fused: torch's fused kernel (True), the written-out products (False), or the faster of the two (None).

    Raises:
        ValueError: when the head counts do not divide.
    """

    causal = True  # no query looks ahead, whatever the mask leaves out besides

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        block_size: int,
        num_kv_heads: int | None = None,
        qk_norm: bool = False,
        bias: bool = False,
        dropout: float = 0.0,
        fused: bool | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if dim % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"dim {dim} must divide by num_heads {num_heads}, and that by num_kv_heads {self.num_kv_heads}"
            )
        self.head_dim = dim // num_heads
        self.block_size = block_size
        self.qk_norm = qk_norm
        self.dropout = dropout
        self.fused = fused
        self.query_key_value = nn.Linear(dim, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim, bias=bias)
        self.projection = nn.Linear(self.num_heads * self.head_dim, dim, bias=bias)
        self.register_buffer("mask", self.make_mask(block_size), persistent=False)
        self.is_plain = type(self).make_mask is CausalSelfAttention.make_mask

    def make_mask(self, block_size: int) -> Tensor:
        """What is added to the scores, [T, S] or [H, T, S]: 0 where a query may look, -inf where it may not."""
        return torch.full((block_size, block_size), -math.inf).triu(diagonal=1)

    def forward(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> Tensor:
        """x [B, T, D] at the positions context.start and on -> [B, T, D]."""
        q, k, v = self.project(x, context, cache)
        fused = x.device.type != "cpu" or x.shape[1] == 1 if self.fused is None else self.fused
        out = self.attend_fused(q, k, v, context) if fused else self.attend(q, k, v, context)
        return self.projection(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, context: Context) -> Tensor:
        """The attention weights [B, H, T, S] that `forward` applies to x [B, T, D]."""
        q, k, _ = self.project(x, context)
        return self.weigh(q, self.share_heads(k), context)

    def project(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, C], keys and values [B, K, S, C]; with a cache, S counts the cached positions too."""
        q, k, v = self.heads(x, context)
        if cache is not None:
            k, v = cache.extend(k, v, context.start, self.block_size)
        return q, k, v

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, T, C], keys and values [B, K, T, C] of x [B, T, D]."""
        heads = self.query_key_value(x).unflatten(-1, (-1, self.head_dim))  # [B, T, H + 2K, C]
        qk, v = heads.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=2)
        qk = self.turn(qk, context, context.start)
        q, k = qk.transpose(1, 2).split((self.num_heads, self.num_kv_heads), dim=1)
        return q, k, v.transpose(1, 2)

    def turn(self, heads: Tensor, context: Context, start: int) -> Tensor:
        """Queries or keys [B, T, N, C] of the positions from `start` on, normalised and turned as positions are."""
        return context.positions.rotate(rms_norm(heads) if self.qk_norm else heads, start)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """softmax(q k^T / sqrt(C) + mask) v, written out: [B, H, T, C].

        Where attention is causal, it takes the queries in chunks (arXiv 2112.05682), each without the keys that lie
        ahead of all of it: half of a long row's products are left out, and scores stay in the processor's cache. A
        CPU trains with this in a quarter of the fused kernel's time at T = 64, in less at 8,192 (docs/notebook.md).
        """
        k, v = self.share_heads(k), self.share_heads(v)
        if not self.causal or q.shape[2] <= CHUNK:
            return self.mix(q, k, v, context)
        ends = [*range(k.shape[2] - q.shape[2] + CHUNK, k.shape[2], CHUNK), k.shape[2]]
        chunks = zip(q.split(CHUNK, dim=2), Prefixes.apply(k, ends), Prefixes.apply(v, ends), strict=True)
        return torch.cat([self.mix(*chunk, context) for chunk in chunks], dim=2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """`attend` in one chunk, with keys and values of every head [B, H, S, C]."""
        return dropout(self.weigh(q, k, context), self.dropout, self.training) @ v

    def weigh(self, q: Tensor, k: Tensor, context: Context) -> Tensor:
        """softmax(q k^T / sqrt(C) + mask): the weights [B, H, T, S], of keys of every head [B, H, S, C]."""
        scores = self.scores(q, k)
        return torch.softmax(scores.add_(self.visible(q, k, context)), dim=-1)

    def share_heads(self, x: Tensor) -> Tensor:
        """Keys or values [B, K, S, C], each given to the query heads that share it: [B, H, S, C]."""
        group = self.num_heads // self.num_kv_heads
        return x if group == 1 else x.repeat_interleave(group, dim=1)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q k^T / sqrt(C), [B, H, T, S]."""
        return (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)

    def attend_fused(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """The same as `attend` by torch's fused kernel, which never holds the weights in memory."""
        # The kernel is fastest without a mask to read: when it is only told that attention is causal, or when a single
        # query looks at all there is.
        masked = not self.is_plain or context.positions.bias is not None or context.padding is not None
        causal = not masked and q.shape[2] == k.shape[2] > 1
        free = not masked and q.shape[2] == 1
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if causal or free else self.visible(q, k, context).to(q.dtype),
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )

    def visible(self, q: Tensor, k: Tensor, context: Context) -> Tensor:
        """What is added to the scores of the newest T positions with the S known ones; [B, H, T, S] or broadcast."""
        end = k.shape[2]
        rows, bias = slice(end - q.shape[2], end), context.positions.bias
        mask = self.mask[..., rows, :end]
        mask = mask if bias is None else mask + bias[:, rows, :end]
        return mask if context.padding is None else mask + context.padding[..., :end]


class BidirectionalAttention(CausalSelfAttention):
    """Every position looks at all, those after it too: an encoder's attention (arXiv 1706.03762, section 3.2.3)."""

    causal = False

    def make_mask(self, block_size: int) -> Tensor:
        return torch.zeros(block_size, block_size)


class CrossAttention(CausalSelfAttention):
    """Every position looks at all of `context.memory`, what an encoder made of its source (the same section).

    Positions act on both sides alike, but what they add to the scores of a text with itself is left out.
    """

    causal = False

    def __init__(self, *, dim: int, bias: bool = False, **options: Any) -> None:
        super().__init__(dim=dim, bias=bias, **options)
        self.is_plain = False
        del self.query_key_value
        self.query = nn.Linear(dim, self.num_heads * self.head_dim, bias=bias)
        self.key_value = nn.Linear(dim, 2 * self.num_kv_heads * self.head_dim, bias=bias)

    def project(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> tuple[Tensor, Tensor, Tensor]:
        q = self.turn(self.query(x).unflatten(-1, (-1, self.head_dim)), context, context.start).transpose(1, 2)
        if cache is not None and cache.memory is not None:
            return q, *cache.memory
        k, v = self.key_value(context.memory).unflatten(-1, (-1, self.head_dim)).chunk(2, dim=2)
        k, v = self.turn(k, context, 0).transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            cache.memory = k, v
        return q, k, v

    def visible(self, q: Tensor, k: Tensor, context: Context) -> Tensor:
        return context.memory_padding


class Prefixes(torch.autograd.Function):
    """x[:, :, :end] for each of several ends, the last one being all of x [B, H, S, C].

    The backward pass adds up in one tensor, where autograd would make one as large as x for each slice.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, ends: list[int]) -> tuple[Tensor, ...]:
        ctx.ends = ends
        return tuple(x[:, :, :end] for end in ends)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The sum, each gradient filled up with zeros."""
        total = gradients[-1].clone()
        for end, gradient in zip(ctx.ends[:-1], gradients, strict=False):
            total[:, :, :end] += gradient
        return total, None
