"""Low-rank adaptation (LoRA, arXiv 2106.09685): fine-tuning a small change of each matrix. Shapes: r rank."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.bounds import PositiveFloat, PositiveInt

FACTORS = ("lora_a", "lora_b")  # the names of the weights that are added to a matrix


class LoRA:
    """Freezes a model, and adds W x + alpha / r * B A x to each `nn.Linear` of its blocks, where A and B are trained.

    Args:
        rank: r, of the change.
        alpha: factor of the change; 2 r when None.
    """

    def __init__(self, *, rank: PositiveInt, alpha: PositiveFloat | None = None) -> None:
        self.rank = rank
        self.scale = 2.0 if alpha is None else alpha / rank

    def add_to(self, model: nn.Module, blocks: nn.Module) -> None:
        """Freeze a model, and adapt the matrices of its blocks."""
        model.requires_grad_(False)
        for module in [*blocks.modules()]:
            for name, child in module.named_children():
                if type(child) is nn.Linear:
                    module.add_module(name, LoRALinear(child, self.rank, self.scale))


class LoRALinear(nn.Linear):
    """An `nn.Linear` with a low-rank change; as B is zero at first, it begins as `linear`.

    Args:
        linear: the matrix, with its bias.
        rank: r.
        scale: factor of the change.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = scale
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """input [..., in_features] -> [..., out_features]."""
        return super().forward(input) + self.scale * F.linear(F.linear(input, self.lora_a), self.lora_b)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the same as one matrix, W + scale * B A."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight.copy_(self.weight + self.scale * self.lora_b @ self.lora_a)
        if self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear


def merge_lora(model: nn.Module) -> bool:
    """Put the changes of LoRA into the matrices of a model, and unfreeze it; return whether there were any."""
    found = False
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, LoRALinear):
                module.add_module(name, child.merged())
                found = True
    if found:
        model.requires_grad_(True)
    return found


def without_lora(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model without those that LoRA adds."""
    return {name: weight for name, weight in weights.items() if not name.endswith(FACTORS)}
