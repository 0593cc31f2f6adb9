"""Norms, feed-forward layers and dropout. Shapes: B batch, T time, D dim."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.bounds import PositiveFloat, PositiveInt


class LayerNorm(nn.Module):
    """Zero mean and unit variance, times a learned weight (arXiv 1607.06450). The bias is optional."""

    def __init__(self, *, dim: PositiveInt, bias: bool = False, eps: PositiveFloat = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Unit root mean square (arXiv 1910.07467).

    Args:
        dim: model width.
        elementwise_affine: multiply by a learned weight; without it the next matrix can learn the same.
        eps: added to the mean square.
    """

    def __init__(self, *, dim: PositiveInt, elementwise_affine: bool = False, eps: PositiveFloat = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim)) if elementwise_affine else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = rms_norm(x, self.eps)
        return x if self.weight is None else x * self.weight


class NoNorm(nn.Module):
    """The identity, in place of a normalisation."""

    def __init__(self, *, dim: PositiveInt) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension."""
    return RootMeanSquare.apply(x, eps) if torch.is_grad_enabled() else x * inverse_rms(x, eps)


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, which is kept with size 1."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.rsqrt(norm * norm / x.shape[-1] + eps)


class RootMeanSquare(torch.autograd.Function):
    """`rms_norm` with a fused backward pass: on a CPU 2 to 5 times as fast as autograd's or torch's RMSNorm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        scale = inverse_rms(x, eps)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        """(g - y mean(g y)) / sqrt(mean(x^2) + eps)."""
        (gradient,) = grad_outputs
        y, scale = ctx.saved_tensors
        along = (gradient * y).mean(dim=-1, keepdim=True)
        return gradient.sub(y * along).mul_(scale), None


class MLP(nn.Module):
    """down(GELU(up(x))), the feed-forward layer of GPT-2. Subclasses change the activation.

    Args:
        dim: model width.
        hidden_dim: width of the hidden layer; 4 * dim when None (arXiv 1706.03762, section 3.3).
        bias: add biases, as GPT-2 does.
    """

    def __init__(self, *, dim: PositiveInt, hidden_dim: PositiveInt | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.up = nn.Linear(dim, hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def activation(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return F.gelu(x)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        return self.down(self.activation(self.up(x)))


class TanhGELUMLP(MLP):
    """down(GELU(up(x))) with the approximation by tanh that GPT-2 was trained with (arXiv 1606.08415, section 2)."""

    def activation(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class ReLUMLP(MLP):
    """down(ReLU(up(x))) (arXiv 1706.03762, equation 2)."""

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ReLU2MLP(MLP):
    """down(ReLU(up(x))^2): at this size as good as gated units, and cheaper (Primer, arXiv 2109.08668)."""

    def activation(self, x: Tensor) -> Tensor:
        return SquaredReLU.apply(x)


class SquaredReLU(torch.autograd.Function):
    """ReLU(x)^2 with a fused backward pass: twice as fast as autograd's on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = F.relu(x)
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """2 g ReLU(x)."""
        (gradient,) = grad_outputs
        (x,) = ctx.saved_tensors
        return torch.addcmul(gradient.new_zeros(()), gradient, x, value=2)


class SwiGLU(nn.Module):
    """down(SiLU(gate(x)) * up(x)) (arXiv 2002.05202).

    Args:
        dim: model width.
        hidden_dim: width of the hidden layer; 8/3 * dim when None, which has as many weights as `MLP`.
        bias: add biases.
    """

    def __init__(self, *, dim: PositiveInt, hidden_dim: PositiveInt | None = None, bias: bool = False) -> None:
        super().__init__()
        hidden_dim = 8 * dim // 3 if hidden_dim is None else hidden_dim
        self.gate_up = nn.Linear(dim, 2 * hidden_dim, bias=bias)
        self.down = nn.Linear(hidden_dim, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class NoMLP(nn.Module):
    """The identity, in place of a feed-forward layer."""

    def __init__(self, *, dim: PositiveInt) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


class Dropout(nn.Module):
    """`torch.nn.Dropout` by way of `dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return dropout(x, self.p, self.training)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """During training, zero each element of x with probability p and divide the rest by 1 - p (arXiv 1207.0580).

    On a CPU torch draws a double per element, which took more than a quarter of a training step. Here 64 random bits
    decide four elements, so that p is rounded to a multiple of 2^-16.
    """
    if not training or p == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    numbers = bits.view(torch.int16)[: x.numel()].view(x.shape)
    first_kept = round(p * 2**16) - 2**15
    kept = numbers.clamp_(first_kept - 1, first_kept).sub_(first_kept - 1)  # 0 or 1
    return x * kept.to(x.dtype).div_(1 - p)
