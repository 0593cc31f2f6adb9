"""A mixture of experts in the place of the MLP. Shapes: B batch, T time, D dim, N tokens, E experts, k chosen ones."""

import torch
from torch import Tensor, nn

from minigpt.model.mlp import SwiGLU


class Experts(nn.Module):
    """Each token goes through the `top_k` experts that a router scores highest (Mixtral, arXiv 2401.04088, section 2).

    Their outputs are weighted by the softmax over the chosen scores alone; with one chosen it is 1, and nothing but the
    balance trains the router. No token is dropped, however many choose one expert. An expert that nobody chose gets a
    gradient of zeros, as training on several devices needs.

    Args:
        dim: model width.
        num_experts: how many there are.
        top_k: how many of them a token goes through.
        hidden_dim: width inside an expert; that of `SwiGLU` when None.
        balance_weight: of the loss that keeps the experts equally busy (Switch, arXiv 2101.03961, equation 4).

    Attributes:
        auxiliary_loss: balance_weight * E * sum_e f_e P_e over the newest tokens of this device, with the share f_e of
            the choices that fell on expert e and its mean probability P_e; balance_weight when all are equally busy.

    Raises:
        ValueError: for more chosen experts than there are.
    """

    auxiliary_loss: Tensor

    def __init__(
        self,
        *,
        dim: int,
        num_experts: int,
        top_k: int,
        hidden_dim: int | None = None,
        balance_weight: float = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"a token goes through 1 to num_experts={num_experts} experts, not top_k={top_k}")
        self.top_k = top_k
        self.balance_weight = balance_weight
        self.router = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(dim=dim, hidden_dim=hidden_dim) for _ in range(num_experts))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        tokens = x.flatten(0, -2)
        logits = self.router(tokens).float()
        scores, chosen = logits.topk(self.top_k)  # [N, k]
        order = chosen.flatten().argsort()  # the N k choices, those of the first expert first
        counts = chosen.flatten().bincount(minlength=len(self.experts))
        parts = tokens[order // self.top_k].split(counts.tolist())  # the one place where a GPU is waited for
        done = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        done = done[order.argsort()].unflatten(0, chosen.shape)  # [N, k, D]
        weights = scores.softmax(dim=-1).to(done.dtype)
        balance = (counts / counts.sum() * logits.softmax(dim=-1).mean(dim=0)).sum()
        self.auxiliary_loss = self.balance_weight * len(self.experts) * balance
        return (weights[..., None] * done).sum(dim=1).view_as(x)
