"""Which parameters are trained how, and Muon.

Shapes: N matrices stacked, R rows, C columns.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

HIDDEN, EMBEDDING, VECTOR = "hidden", "embedding", "vector"


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """The model's parameters in three groups, named by their `role`; empty groups are left out.

    "hidden": matrices inside the model. "embedding": token and position tables and the head, whose rows belong to
    tokens or positions. "vector": gains and biases, which are never decayed: shrinking them regularises nothing.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(p) for name, p in model.named_parameters() if name.endswith("head.weight")}
    groups: dict[str, list[nn.Parameter]] = {HIDDEN: [], EMBEDDING: [], VECTOR: []}
    for parameter in model.parameters():
        role = VECTOR if parameter.ndim < 2 else EMBEDDING if id(parameter) in tables else HIDDEN
        groups[role].append(parameter)
    no_decay = {VECTOR: {"weight_decay": 0.0}}
    return [{"params": ps, "role": role, **no_decay.get(role, {})} for role, ps in groups.items() if ps]


class Muon(torch.optim.Optimizer):
    """Muon for hidden matrices, AdamW for all else, as one optimizer, so that automatic optimization works.

    Muon replaces the momentum of a matrix by the nearest matrix with all singular values near 1 and steps by it,
    scaled by sqrt(max(1, R / C)) (Jordan et al., "Muon", 2024). Weight decay is decoupled for both.

    Args:
        params: groups of `parameter_groups`; those of role "hidden" get Muon.
        lr: of the hidden matrices.
        momentum: Nesterov momentum of the hidden matrices.
        adamw_lr: of all else; a schedule scales both.
        betas, eps: of AdamW.
        weight_decay: per step, times the learning rate.
        iterations: of the orthogonalisation.

    Attributes:
        low_precision: whether the orthogonalisation's products are done in bfloat16.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        adamw_lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        iterations: int = 5,
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
        """Compile the orthogonalisation: dozens of small operations for each shape of matrices."""
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
        """Matrices of one shape are orthogonalised together: few large products instead of many small ones."""
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append(parameter)
        for shape, parameters in by_shape.items():
            gradients = [p.grad for p in parameters]
            buffers = []
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
                buffers.append(self.state[p]["momentum"])
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
            stacked = torch.stack(nesterov)
            updates = self.orthogonalize(stacked.bfloat16() if self.low_precision else stacked, group["iterations"])
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, list(updates.to(parameters[0].dtype).unbind()), alpha=-group["lr"] * scale)

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


def orthogonalize(matrices: Tensor, iterations: int) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end between about 0.7 and 1.2. [N, R, C].

    Newton-Schulz iteration X <- a X + (b A + c A^2) X with A = X X^T, which bfloat16 is good enough for, with
    the coefficients that lift small singular values fastest (Jordan et al., "Muon", 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
