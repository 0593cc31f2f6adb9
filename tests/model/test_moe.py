"""Mixture of experts: routing, load balancing and parameter counts."""

from functools import partial

import pytest
import torch

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import Positions
from minigpt.model.gpt import GPT
from minigpt.model.layers import RMSNorm
from minigpt.model.moe import MixtureOfExperts
from minigpt.model.objectives import NextToken
from minigpt.model.size import count_active_parameters, count_parameters, flops_per_token
from minigpt.training.optimizers import parameter_groups


@pytest.fixture
def mixture():
    return MixtureOfExperts(dim=8, hidden_dim=6, num_experts=5, top_k=3, aux_loss_coef=0.5)


@pytest.fixture
def model():
    components = {"attention": CausalSelfAttention, "norm": RMSNorm, "positions": Positions}
    mlp = partial(MixtureOfExperts, num_experts=4, top_k=1, hidden_dim=10)
    return GPT(vocab_size=7, block_size=8, num_layers=2, num_heads=2, dim=16, mlp=mlp, **components)


def test_each_token_goes_through_the_experts_it_scores_highest(mixture):
    x = torch.randn(2, 7, 8)
    expected = torch.zeros(2, 7, 8)
    for b in range(2):
        for t in range(7):
            scores = {e: mixture.router.weight[e] @ x[b, t] for e in range(5)}
            chosen = sorted(scores, key=scores.get)[-3:]
            total = sum(scores[e].exp() for e in chosen)
            for e in chosen:
                expected[b, t] += scores[e].exp() / total * mixture.experts[e](x[b, t])
    torch.testing.assert_close(mixture(x), expected)


def test_auxiliary_loss_equals_the_papers_formula(mixture):
    x = torch.randn(2, 7, 8)
    mixture(x)
    logits = x.flatten(0, 1) @ mixture.router.weight.T
    chosen, p = logits.argsort(dim=1)[:, -3:], logits.softmax(1).mean(0)
    f = [(chosen == e).sum() / (14 * 3) for e in range(5)]
    torch.testing.assert_close(mixture.auxiliary_loss, 0.5 * 5 * sum(f[e] * p[e] for e in range(5)))


def test_auxiliary_loss_is_its_coefficient_at_perfect_balance_and_more_otherwise():
    mixture = MixtureOfExperts(dim=4, num_experts=4, top_k=1, aux_loss_coef=0.5)
    mixture.router.weight.data = 9 * torch.eye(4)
    mixture(torch.eye(4)[None])
    assert mixture.auxiliary_loss.item() == pytest.approx(0.5)
    mixture(torch.eye(4)[None, [0, 0, 0, 0]])
    assert mixture.auxiliary_loss.item() == pytest.approx(0.5 * 4, rel=0.01)


def test_an_expert_without_tokens_has_zero_gradients(mixture):
    mixture.router.weight.data.zero_()[:3] = 1.0
    mixture(torch.ones(1, 4, 8)).sum().backward()
    assert all(p.grad is not None for p in mixture.parameters())
    assert [bool(e.down.weight.grad.any()) for e in mixture.experts] == [True, True, True, False, False]


def test_the_auxiliary_losses_of_all_layers_are_minimised(model):
    tokens = torch.randint(7, (2, 8))
    minimised, reported = NextToken().loss(model, tokens, tokens)
    losses = [block.mlp.auxiliary_loss for block in model.blocks]
    torch.testing.assert_close(minimised - reported, losses[0] + losses[1], atol=1e-6, rtol=0)
    minimised.backward()
    assert all(block.mlp.router.weight.grad.any() for block in model.blocks)


def test_only_chosen_experts_count_as_active(model):
    other = 2 * 7 * 16 + 2 * 4 * 16 * 16  # embedding and head; two layers of attention
    expert, router = 3 * 10 * 16, 4 * 16
    assert count_parameters(model) == other + 2 * (router + 4 * expert)
    assert count_active_parameters(model) == other + 2 * (router + expert)
    assert flops_per_token(model, 8) == 6 * (count_active_parameters(model) - 7 * 16) + 12 * 2 * 16 * 8


def test_experts_are_hidden_matrices_and_residual_projections(model):
    hidden = {id(p) for p in parameter_groups(model)[0]["params"] if p.ndim == 2}
    assert {id(p) for p in model.blocks[0].mlp.parameters()} <= hidden
    assert model.blocks[0].mlp.experts[0].down.weight.std().item() == pytest.approx(0.02 / 4**0.5, rel=0.3)


def test_a_mixture_keeps_the_dtype(mixture):
    assert mixture.bfloat16()(torch.randn(1, 2, 8).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("top_k", [0, 6])
def test_top_k_is_from_one_to_the_number_of_experts(top_k):
    with pytest.raises(ValueError, match=f"not top_k={top_k}"):
        MixtureOfExperts(dim=8, num_experts=5, top_k=top_k)
