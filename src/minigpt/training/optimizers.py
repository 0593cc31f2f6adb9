"""Parameter groups by role, and Muon.

Shapes: N matrices stacked, R rows, C columns.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from minigpt.bounds import Momentum, NonNegativeFloat, PositiveFloat, PositiveInt

HIDDEN, EMBEDDING, VECTOR = "hidden", "embedding", "vector"


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The model's trainable parameters in three groups, named by their `role`; empty groups are omitted.

    "hidden": matrices inside the model. "embedding": token and position tables and the head, whose rows belong to
    tokens or positions. "vector": norm weights and biases, which have no weight decay: it would regularize nothing.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(p) for name, p in model.named_parameters() if name.endswith("head.weight")}
    groups: dict[str, list[nn.Parameter]] = {HIDDEN: [], EMBEDDING: [], VECTOR: []}
    for parameter in (p for p in model.parameters() if p.requires_grad):
        role = VECTOR if parameter.ndim < 2 else EMBEDDING if id(parameter) in tables else HIDDEN
        groups[role].append(parameter)
    no_decay = {VECTOR: {"weight_decay": 0.0}}
    return [{"params": ps, "role": role, **no_decay.get(role, {})} for role, ps in groups.items() if ps]


class Muon(torch.optim.Optimizer):
    """Muon for hidden matrices and AdamW for all others as one optimizer, so that automatic optimization works.

    Muon replaces the momentum of a matrix by the nearest matrix whose singular values are all near 1, scaled by
    sqrt(max(1, R / C)) (Jordan et al., "Muon", 2024, https://kellerjordan.github.io/posts/muon). Weight decay is
    decoupled for both.

    Args:
        params: groups of `parameter_groups`; those of role "hidden" get Muon.
        lr: learning rate of the hidden matrices.
        momentum: Nesterov momentum of the hidden matrices.
        adamw_lr: learning rate of all others; a schedule scales both.
        betas, eps: of AdamW.
        weight_decay: per step, times the learning rate.
        iterations: number of polynomials of the orthogonalization; see `polar_polynomials`.

    Attributes:
        low_precision: whether the matrix products of the orthogonalization are computed in bfloat16.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: PositiveFloat,
        momentum: Momentum,
        adamw_lr: PositiveFloat,
        weight_decay: NonNegativeFloat,
        betas: tuple[Momentum, Momentum] = (0.9, 0.95),
        eps: PositiveFloat = 1e-10,
        iterations: PositiveInt = 3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "iterations": iterations,
        }
        super().__init__(params, defaults)
        self.low_precision = False
        self.orthogonalize = orthogonalize
        for group in self.param_groups:
            if group["role"] != HIDDEN:
                group["lr"] = adamw_lr

    def compile(self) -> None:
        """Compile the orthogonalization: dozens of small operations for each shape of matrices."""
        self.orthogonalize = torch.compile(orthogonalize, dynamic=False)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; `closure` computes the gradients first when it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["role"] == HIDDEN:
                self.step_muon(group)
            else:
                self.step_adamw(group)
        return loss

    def step_muon(self, group: dict[str, Any]) -> None:
        """Orthogonalize matrices of one shape together: few large products instead of many small ones."""
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append(parameter)
        for shape, parameters in by_shape.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            buffers = []
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                buffers.append(self.state[p]["momentum"])
            # torch has no public operation on lists of tensors; on a CPU and on a GPU they save a call per tensor.
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
            nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])  # pyright: ignore[reportPrivateImportUsage]
            stacked = torch.stack(nesterov)
            stacked = stacked.bfloat16() if self.low_precision else stacked
            updates = self.orthogonalize(stacked, polar_polynomials(group["iterations"]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_(parameters, list(updates.to(parameters[0].dtype).unbind()), alpha=-group["lr"] * scale)  # pyright: ignore[reportPrivateImportUsage]

    def step_adamw(self, group: dict[str, Any]) -> None:
        """torch's own AdamW on one group."""
        parameters = [p for p in group["params"] if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["step"] = torch.zeros((), device=p.device)
                self.state[p]["exp_avg"] = torch.zeros_like(p)
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


Polynomial = tuple[float, float, float]  # a x + b x^3 + c x^5


def orthogonalize(matrices: Tensor, polynomials: list[Polynomial]) -> Tensor:
    """Approximate the nearest semi-orthogonal matrices [N, R, C] by polynomials of the singular values.

    X <- a X + (b A + c A^2) X with A = X X^T applies a polynomial to all singular values at once; bfloat16 suffices.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (1.01 * torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)  # bfloat16 must not pass 1 either
    for a, b, c in polynomials:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@functools.lru_cache
def polar_polynomials(count: int, smallest: float = 0.003) -> list[Polynomial]:
    """The `count` polynomials whose composition maps [smallest, 1] closest to 1.

    Each is optimal for the interval that those before it leave (Polar Express, arXiv 2505.16932, algorithm 1). Three
    map it to 0.35 .. 1.65, five to 0.995 .. 1.005. Growing small singular values matters more than ending at exactly 1:
    three of these train as well as five of Jordan's iterations, long runs at a lower learning rate (docs/notebook.md).
    """
    polynomials: list[Polynomial] = []
    low, high = smallest, 1.0
    for _ in range(count):
        polynomials.append(best_polynomial(low, high))
        a, b, c = polynomials[-1]
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
    return polynomials


def best_polynomial(low: float, high: float) -> Polynomial:
    """The odd polynomial of degree 5 that stays closest to 1 on [low, high], by the Remez exchange algorithm.

    The error of the optimum alternates between its extremes at both ends of the interval and at two points within.
    """
    if low > 0.9 * high:  # too narrow for the exchange; Newton-Schulz is as good here
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    left, right = (3 * low + high) / 4, (low + 3 * high) / 4
    a = b = c = 0.0
    for _ in range(100):
        rows = [[x, x**3, x**5, sign] for x, sign in zip((low, left, right, high), (1, -1, 1, -1), strict=True)]
        a, b, c, _ = np.linalg.solve(rows, np.ones(4)).tolist()
        root = math.sqrt(9 * b * b - 20 * a * c)
        left, right = (math.sqrt((-3 * b - sign * root) / (10 * c)) for sign in (1, -1))
    return a, b, c
