"""Dropout that is cheap on a CPU too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """`torch.nn.Dropout` by `dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape -> the same shape."""
        return dropout(x, self.p, self.training)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Each number of x zero with probability p, the others divided by 1 - p, while training (arXiv 1207.0580).

    On a CPU torch draws a double for each number, which took more than a quarter of a training step. Here 64 random
    bits decide four numbers, so p is rounded to a multiple of 2^-16.
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
