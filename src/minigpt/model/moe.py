"""Mixture of experts in place of the MLP. Shapes: B batch, T time, D dim, N tokens, E experts, k experts per token."""

import torch
from torch import Tensor, nn

from minigpt.bounds import NonNegativeFloat, NumModules, PositiveInt
from minigpt.model.layers import SwiGLU


class MixtureOfExperts(nn.Module):
    """Sends each token to the `top_k` experts that a router scores highest (Mixtral, arXiv 2401.04088, section 2).

    Their outputs are weighted by the softmax of the chosen scores. With top_k=1 the weight is 1, so that only the
    auxiliary loss trains the router. No token is dropped, however many choose the same expert. An expert without tokens
    gets zero gradients and not None, as data-parallel training needs.

    Args:
        dim: model width.
        num_experts: number of experts, E.
        top_k: experts per token, k.
        hidden_dim: width of an expert's hidden layer; the default of `SwiGLU` when None.
        aux_loss_coef: coefficient of the load-balancing loss (Switch, arXiv 2101.03961, equation 4).

    Attributes:
        auxiliary_loss: aux_loss_coef * E * sum_e f_e P_e over the last batch on this device, where f_e is the fraction
            of choices that fell on expert e and P_e its mean probability; aux_loss_coef at perfect balance.

    Raises:
        ValueError: `top_k` is not from 1 to `num_experts`.
    """

    auxiliary_loss: Tensor

    def __init__(
        self,
        *,
        dim: PositiveInt,
        num_experts: NumModules,
        top_k: PositiveInt,
        hidden_dim: PositiveInt | None = None,
        aux_loss_coef: NonNegativeFloat = 0.01,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(
                f"a token goes through 1 to model.mlp.num_experts={num_experts} experts, not top_k={top_k}"
            )
        self.top_k = top_k
        self.aux_loss_coef = aux_loss_coef
        self.router = nn.Linear(dim, num_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(dim=dim, hidden_dim=hidden_dim) for _ in range(num_experts))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        tokens = x.flatten(0, -2)
        logits = self.router(tokens).float()
        scores, chosen = logits.topk(self.top_k)  # [N, k]
        order = chosen.flatten().argsort()  # the N k choices, sorted by expert
        counts = chosen.flatten().bincount(minlength=len(self.experts))
        inputs = tokens[order // self.top_k].split(counts.tolist())  # the only synchronisation with a GPU
        outputs = torch.cat([expert(each) for expert, each in zip(self.experts, inputs, strict=True)])
        outputs = outputs[order.argsort()].unflatten(0, chosen.shape)  # [N, k, D]
        weights = scores.softmax(dim=-1).to(outputs.dtype)
        balance = (counts / counts.sum() * logits.softmax(dim=-1).mean(dim=0)).sum()
        self.auxiliary_loss = self.aux_loss_coef * len(self.experts) * balance
        return (weights[..., None] * outputs).sum(dim=1).view_as(x)
