"""Scaled dot-product attention: causal, bidirectional and cross-attention (arXiv 1706.03762, section 3.2).

Shapes: B batch, T query positions, S key positions, D dim, H query heads, K key-value heads, C head_dim.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.bounds import DropProbability, PositiveInt
from minigpt.model.attention_cpu import chunked_attention, is_long
from minigpt.model.forward_context import ForwardContext
from minigpt.model.kv_cache import LayerCache
from minigpt.model.layers import dropout, rms_norm


class CausalSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(C) + mask) v, where each position attends to itself and to those before it.

    Fewer key-value heads than query heads make it grouped-query attention (arXiv 2305.13245); a single one makes it
    multi-query attention.

    Args:
        dim: model width.
        num_heads: number of query heads.
        block_size: longest context [tokens].
        num_kv_heads: number of key-value heads; `num_heads` when None.
        qk_norm: apply RMSNorm to queries and keys, which bounds the scores (arXiv 2302.05442).
        bias: add biases to the projections, as GPT-2 does.
        dropout: probability of dropping an attention weight during training.
        fused: use torch's fused kernel (True), plain matrix products (False), or the faster of the two (None).

    Raises:
        ValueError: `dim` is not divisible by `num_heads`, or `num_heads` by `num_kv_heads`.
    """

    causal = True  # whether no query attends to a later key
    mask: Tensor

    def __init__(
        self,
        *,
        dim: PositiveInt,
        num_heads: PositiveInt,
        block_size: PositiveInt,
        num_kv_heads: PositiveInt | None = None,
        qk_norm: bool = False,
        bias: bool = False,
        dropout: DropProbability = 0.0,
        fused: bool | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        self.head_dim = divide_heads(dim, num_heads)
        if num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads={num_heads} must divide by model.attention.num_kv_heads={self.num_kv_heads}"
            )
        self.block_size = block_size
        self.qk_norm = qk_norm
        self.dropout = dropout
        self.fused = fused
        self.qkv_proj = nn.Linear(dim, (self.num_heads + 2 * self.num_kv_heads) * self.head_dim, bias=bias)
        self.out_proj = nn.Linear(self.num_heads * self.head_dim, dim, bias=bias)
        self.register_buffer("mask", self.make_mask(block_size), persistent=False)
        self.has_plain_mask = type(self).make_mask is CausalSelfAttention.make_mask

    def make_mask(self, block_size: int) -> Tensor:
        """Return the mask, [T, S] or [H, T, S], that is added to the scores: -inf for the keys to leave out, else 0."""
        return torch.full((block_size, block_size), -math.inf).triu(diagonal=1)

    def forward(self, x: Tensor, context: ForwardContext, cache: LayerCache | None = None) -> Tensor:
        """x [B, T, D], which starts at position context.start -> [B, T, D]."""
        q, k, v = self.qkv(x, context)
        if cache is not None:
            k, v = cache.update(k, v, context.start, self.block_size)
        return self.attend(q, k, v, context)

    def qkv(self, x: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, H, T, C] and keys and values [B, K, T, C] of x [B, T, D]."""
        heads = self.qkv_proj(x).unflatten(-1, (-1, self.head_dim))  # [B, T, H + 2K, C]
        qk, v = heads.split((self.num_heads + self.num_kv_heads, self.num_kv_heads), dim=2)
        qk = self.apply_rotary(qk, context, context.start)
        q, k = qk.transpose(1, 2).split((self.num_heads, self.num_kv_heads), dim=1)
        return q, k, v.transpose(1, 2)

    def apply_rotary(self, heads: Tensor, context: ForwardContext, start: int) -> Tensor:
        """Apply QK-norm and rotary positions to queries or keys [B, T, N, C] that start at position `start`."""
        return context.positions.rotate(rms_norm(heads) if self.qk_norm else heads, start)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: ForwardContext) -> Tensor:
        """Queries [B, H, T, C], keys and values [B, K, S, C] -> [B, T, D]; the queries are the newest T positions."""
        fused = q.device.type != "cpu" or q.shape[2] == 1 if self.fused is None else self.fused
        out = self.sdpa(q, k, v, context) if fused else self.eager(q, k, v, context)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def eager(self, q: Tensor, k: Tensor, v: Tensor, context: ForwardContext) -> Tensor:
        """softmax(q k^T / sqrt(C) + bias) v by plain matrix products, [B, H, T, C]."""

        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return dropout(self.attention_probs(q, k, context), self.dropout, self.training) @ v

        k, v = self.repeat_kv(k), self.repeat_kv(v)
        return chunked_attention(attention, q, k, v) if self.causal and is_long(q) else attention(q, k, v)

    def attention_probs(self, q: Tensor, k: Tensor, context: ForwardContext) -> Tensor:
        """softmax(q k^T / sqrt(C) + bias), [B, H, T, S], of keys with all heads [B, H, S, C]."""
        return torch.softmax(self.attention_scores(q, k, context), dim=-1)

    def attention_scores(self, q: Tensor, k: Tensor, context: ForwardContext) -> Tensor:
        """q k^T / sqrt(C) + bias, [B, H, T, S], of keys with all heads [B, H, S, C]."""
        return self.scores(q, k).add_(self.attention_bias(q, k, context))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """q k^T / sqrt(C), [B, H, T, S]."""
        return (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)

    def attention_bias(self, q: Tensor, k: Tensor, context: ForwardContext) -> Tensor:
        """Mask, position bias and padding for the newest T of S positions, broadcastable to [B, H, T, S]."""
        end = k.shape[2]
        newest, bias = slice(end - q.shape[2], end), context.positions.bias
        mask = self.mask[..., newest, :end]
        mask = mask if bias is None else mask + bias[:, newest, :end]
        return mask if context.padding is None else mask + context.padding[..., :end]

    def repeat_kv(self, x: Tensor) -> Tensor:
        """Repeat keys or values [B, K, S, C] for the query heads that share them: [B, H, S, C]."""
        group = self.num_heads // self.num_kv_heads
        return x if group == 1 else x.repeat_interleave(group, dim=1)

    def sdpa(self, q: Tensor, k: Tensor, v: Tensor, context: ForwardContext) -> Tensor:
        """The same by torch's fused kernel, which never holds the attention weights in memory."""
        # The kernel is fastest without a mask to read: with is_causal, or when a single query attends to all keys.
        masked = not self.has_plain_mask or context.positions.bias is not None or context.padding is not None
        is_causal = not masked and q.shape[2] == k.shape[2] > 1
        unmasked = not masked and q.shape[2] == 1
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if is_causal or unmasked else self.attention_bias(q, k, context).to(q.dtype),
            is_causal=is_causal,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.num_kv_heads != self.num_heads,
        )

    def attention_map(self, x: Tensor, context: ForwardContext) -> Tensor:
        """Return the attention weights [B, H, T, S] that `forward` applies to x [B, T, D]."""
        q, k, _ = self.qkv(x, context)
        return self.attention_probs(q, self.repeat_kv(k), context)


class BidirectionalAttention(CausalSelfAttention):
    """Each position attends to all positions: the attention of an encoder (arXiv 1706.03762, section 3.2.3)."""

    causal = False

    def make_mask(self, block_size: int) -> Tensor:
        return torch.zeros(block_size, block_size)


class CrossAttention(CausalSelfAttention):
    """Each position attends to all of `context.memory`, the output of an encoder (arXiv 1706.03762, section 3.2.3).

    Rotary positions apply to both sides. Position biases do not, since they depend on distances within one text.
    """

    causal = False

    def __init__(self, *, dim: PositiveInt, bias: bool = False, **options: Any) -> None:
        super().__init__(dim=dim, bias=bias, **options)
        self.has_plain_mask = False
        del self.qkv_proj  # queries and keys have different inputs
        self.q_proj = nn.Linear(dim, self.num_heads * self.head_dim, bias=bias)
        self.kv_proj = nn.Linear(dim, 2 * self.num_kv_heads * self.head_dim, bias=bias)

    def forward(self, x: Tensor, context: ForwardContext, cache: LayerCache | None = None) -> Tensor:
        if cache is None:
            return self.attend(*self.qkv(x, context), context)
        if cache.memory is None:
            cache.memory = self.memory_kv(context)
        return self.attend(self.queries(x, context), *cache.memory, context)

    def qkv(self, x: Tensor, context: ForwardContext) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries(x, context), *self.memory_kv(context)

    def queries(self, x: Tensor, context: ForwardContext) -> Tensor:
        """Return the queries [B, H, T, C] of x [B, T, D]."""
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        return self.apply_rotary(q, context, context.start).transpose(1, 2)

    def memory_kv(self, context: ForwardContext) -> tuple[Tensor, Tensor]:
        """Return the keys and values [B, K, S, C] of the encoder's output."""
        assert context.memory is not None, "cross-attention needs context.memory"
        k, v = self.kv_proj(context.memory).unflatten(-1, (-1, self.head_dim)).chunk(2, dim=2)
        return self.apply_rotary(k, context, 0).transpose(1, 2), v.transpose(1, 2)

    def attention_bias(self, q: Tensor, k: Tensor, context: ForwardContext) -> Tensor:
        assert context.memory_padding is not None, "cross-attention needs context.memory_padding"
        return context.memory_padding


def divide_heads(dim: int, num_heads: int) -> int:
    """Return the width of a head, dim / num_heads.

    Raises:
        ValueError: `dim` is not divisible by `num_heads`.
    """
    if dim % num_heads:
        raise ValueError(f"model.dim={dim} must divide by model.num_heads={num_heads}")
    return dim // num_heads
