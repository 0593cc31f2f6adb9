"""How a model knows where a token stands.

A position scheme may act in three places: it may add to the token embeddings, turn the queries and keys, or add to the
attention scores. `Positions` does none of it; a scheme overrides what it needs.

Shapes: B batch, T time, D dim, N heads (of queries and keys together), C head_dim.
"""

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """No positions at all: causal attention alone must tell the order (arXiv 2203.16634)."""

    bias: Tensor | None  # what is added to the scores of each head [H, block_size, block_size]

    def __init__(self, *, block_size: int, dim: int, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("bias", None, persistent=False)

    def add(self, embeddings: Tensor, start: int) -> Tensor:
        """Embeddings [B, T, D] of the positions start .. start + T - 1, with what the scheme adds to them."""
        return embeddings

    def rotate(self, heads: Tensor, start: int) -> Tensor:
        """Queries or keys [B, T, N, C] of the positions start .. start + T - 1, turned as the scheme turns them."""
        return heads


class LearnedPositions(Positions):
    """One learned vector per position, added to the embedding (GPT-2)."""

    def __init__(self, *, block_size: int, dim: int, head_dim: int) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        self.embedding = nn.Embedding(block_size, dim)

    def add(self, embeddings: Tensor, start: int) -> Tensor:
        return embeddings + self.embedding.weight[start : start + embeddings.shape[1]]


class SinusoidalPositions(Positions):
    """Sines and cosines in turn, from fast to slow, added to the embedding (arXiv 1706.03762, section 3.5)."""

    def __init__(self, *, block_size: int, dim: int, head_dim: int) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        if dim % 2:
            raise ValueError(f"sinusoidal positions are pairs of sine and cosine: dim must be even, not {dim}")
        angles = make_angles(block_size, dim, 10_000.0)
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
        self.register_buffer("table", table, persistent=False)

    def add(self, embeddings: Tensor, start: int) -> Tensor:
        return embeddings + self.table[start : start + embeddings.shape[1]]


class RotaryPositions(Positions):
    """Rotary embedding: dimension pairs (i, i + C/2) are turned by position * base^(-2i/C) (arXiv 2104.09864).

    The dot product of a query and a key then depends on their distance alone.
    """

    def __init__(self, *, block_size: int, dim: int, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        if head_dim % 2:
            raise ValueError(f"rotary positions turn pairs of dimensions: head_dim must be even, not {head_dim}")
        angles = make_angles(block_size, head_dim, base)
        cos, sin = angles.cos(), angles.sin()
        # [block_size, 1, C]: the halves of a head are the first and the second members of the pairs.
        self.register_buffer("cos", torch.cat((cos, cos), dim=1)[:, None, :], persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=1)[:, None, :], persistent=False)

    def rotate(self, heads: Tensor, start: int) -> Tensor:
        span = slice(start, start + heads.shape[1])
        cos, sin = self.cos[span].to(heads.dtype), self.sin[span].to(heads.dtype)
        return heads * cos + heads.roll(heads.shape[-1] // 2, dims=-1) * sin


class AlibiPositions(Positions):
    """The score of a key falls with its distance, by a slope for each head (ALiBi, arXiv 2108.12409, section 3).

    The slopes of H heads are 2^(-8/H), 2^(-16/H), ... when H is a power of two; else those of the power of two below
    it, and then every other one of the power above.
    """

    def __init__(self, *, block_size: int, dim: int, head_dim: int) -> None:
        super().__init__(block_size=block_size, dim=dim, head_dim=head_dim)
        num_heads = dim // head_dim
        power = 2 ** (num_heads.bit_length() - 1)
        slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
        slopes += [2 ** (-4 * i / power) for i in range(1, 2 * (num_heads - power), 2)]
        positions = torch.arange(block_size)
        bias = torch.tensor(slopes)[:, None, None] * (positions - positions[:, None])
        self.register_buffer("bias", bias, persistent=False)


def make_angles(block_size: int, width: int, base: float) -> Tensor:
    """position * base^(-2i / width) for the pairs i of `width` dimensions, [block_size, width / 2]."""
    frequencies = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(block_size, dtype=torch.float64), frequencies).float()
