"""Embeddings of tokens and of positions.

A position scheme can act in three places: on the token embeddings (`add`), on queries and keys (`rotate`) and on the
attention scores (`bias`). `Positions` does nothing; a scheme overrides what it needs.

Shapes: B batch, T time, D dim, P earlier tokens, N heads (of queries and keys together), H query heads, C head_dim.
"""

import math

import torch
from torch import Tensor, nn

from minigpt.bounds import PositiveFloat, PositiveInt


class TokenEmbedding(nn.Embedding):
    """One learned vector per token.

    Attributes:
        context_size: number of earlier tokens that a token's vector depends on.
    """

    context_size = 0

    def __init__(self, *, vocab_size: PositiveInt, dim: PositiveInt) -> None:
        super().__init__(vocab_size, dim)

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] # nn.Embedding calls them input
        """Token ids [B, T] and those before them [B, P] -> [B, T, D]."""
        return super().forward(tokens)


class ScaledEmbedding(TokenEmbedding):
    """Vectors times sqrt(D), which keeps those of a tied head from drowning in positions (arXiv 1706.03762, 3.4)."""

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        return super().forward(tokens) * math.sqrt(self.embedding_dim)


class Positions(nn.Module):
    """No positions: causal attention alone can learn the order (arXiv 2203.16634).

    Attributes:
        bias: added to the attention scores [H, block_size, block_size], or None.
    """

    bias: Tensor | None

    def __init__(self, *, block_size: PositiveInt, dim: PositiveInt, head_dim: PositiveInt) -> None:
        super().__init__()
        self.register_buffer("bias", None, persistent=False)

    def add(self, embeddings: Tensor, start: int) -> Tensor:
        """Add position embeddings to token embeddings [B, T, D] at positions start .. start + T - 1."""
        return embeddings

    def rotate(self, heads: Tensor, start: int) -> Tensor:
        """Rotate queries or keys [B, T, N, C] at positions start .. start + T - 1."""
        return heads


class LearnedPositions(Positions):
    """One learned vector per position, added to the token embedding (GPT-2)."""

    def __init__(self, *, block_size: PositiveInt, dim: PositiveInt, head_dim: PositiveInt) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        self.embedding = nn.Embedding(block_size, dim)

    def add(self, embeddings: Tensor, start: int) -> Tensor:
        return embeddings + self.embedding.weight[start : start + embeddings.shape[1]]


class SinusoidalPositions(Positions):
    """Interleaved sines and cosines of decreasing frequency, added to the embedding (arXiv 1706.03762, section 3.5).

    Raises:
        ValueError: `dim` is odd.
    """

    table: Tensor

    def __init__(self, *, block_size: PositiveInt, dim: PositiveInt, head_dim: PositiveInt) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        if dim % 2:
            raise ValueError(f"sinusoidal positions are pairs of sine and cosine: model.dim must be even, not {dim}")
        angles = make_angles(block_size, dim, 10_000.0)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
        self.register_buffer("table", table, persistent=False)

    def add(self, embeddings: Tensor, start: int) -> Tensor:
        return embeddings + self.table[start : start + embeddings.shape[1]]


class RotaryPositions(Positions):
    """Rotates the pair of dimensions (i, i + C/2) by position * base^(-2i/C) (RoPE, arXiv 2104.09864).

    The dot product of a query and a key then depends on their distance alone.

    Raises:
        ValueError: `head_dim` is odd.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self, *, block_size: PositiveInt, dim: PositiveInt, head_dim: PositiveInt, base: PositiveFloat = 10_000.0
    ) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        if head_dim % 2:
            raise ValueError(f"rotary positions need an even head_dim, not {head_dim}: change model.num_heads")
        self.base = base
        angles = make_angles(block_size, head_dim, base)
        cos, sin = angles.cos(), angles.sin()
        # [block_size, 1, C]; the first half of a head holds the first members of the pairs, the second half the others.
        self.register_buffer("cos", torch.cat((cos, cos), dim=1)[:, None, :], persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=1)[:, None, :], persistent=False)

    def rotate(self, heads: Tensor, start: int) -> Tensor:
        span = slice(start, start + heads.shape[1])
        cos, sin = self.cos[span].to(heads.dtype), self.sin[span].to(heads.dtype)
        return heads * cos + heads.roll(heads.shape[-1] // 2, dims=-1) * sin


class AlibiPositions(Positions):
    """Adds -slope * distance to the score of a key, with one slope per head (ALiBi, arXiv 2108.12409, section 3).

    The slopes of H heads are 2^(-8/H), 2^(-16/H), ... if H is a power of two. Otherwise they are those of the next
    lower power of two, then every other one of the next higher.
    """

    def __init__(self, *, block_size: PositiveInt, dim: PositiveInt, head_dim: PositiveInt) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        num_heads = dim // head_dim
        power = 2 ** (num_heads.bit_length() - 1)
        slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
        slopes += [2 ** (-4 * i / power) for i in range(1, 2 * (num_heads - power), 2)]
        positions = torch.arange(block_size)
        bias = torch.tensor(slopes)[:, None, None] * (positions - positions[:, None])
        self.register_buffer("bias", bias, persistent=False)


def make_angles(block_size: int, dim: int, base: float) -> Tensor:
    """Return position * base^(-2i / dim) for each pair i of `dim` dimensions, [block_size, dim / 2]."""
    frequencies = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.outer(torch.arange(block_size, dtype=torch.float64), frequencies).float()
