"""A mixture of experts: who computes what, how busy all are kept, and what it counts."""

from functools import partial

import pytest
import torch

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.experts import Experts
from minigpt.model.gpt import GPT, count_active_parameters, count_parameters, flops_per_token
from minigpt.model.norms import RMSNorm
from minigpt.model.objectives import NextToken
from minigpt.model.positions import Positions
from minigpt.training.optimizers import parameter_groups


@pytest.fixture
def mixture():
    return Experts(dim=8, hidden_dim=6, num_experts=5, top_k=3, balance_weight=0.5)


@pytest.fixture
def model():
    parts = {"attention": CausalSelfAttention, "norm": RMSNorm, "positions": Positions}
    mlp = partial(Experts, num_experts=4, top_k=1, hidden_dim=10)
    return GPT(vocab_size=7, block_size=8, num_layers=2, num_heads=2, dim=16, mlp=mlp, **parts)


def test_each_token_goes_through_the_experts_it_scores_highest(mixture):
    x = torch.randn(2, 7, 8)
    expected = torch.zeros(2, 7, 8)
    for row in range(2):
        for t in range(7):
            scores = {e: mixture.router.weight[e] @ x[row, t] for e in range(5)}
            chosen = sorted(scores, key=scores.get)[-3:]
            total = sum(scores[e].exp() for e in chosen)
            for e in chosen:
                expected[row, t] += scores[e].exp() / total * mixture.experts[e](x[row, t])
    torch.testing.assert_close(mixture(x), expected)


def test_balance_is_the_papers_formula(mixture):
    x = torch.randn(2, 7, 8)
    mixture(x)
    logits = x.flatten(0, 1) @ mixture.router.weight.T
    chosen, p = logits.argsort(dim=1)[:, -3:], logits.softmax(1).mean(0)
    f = [(chosen == e).sum() / (14 * 3) for e in range(5)]
    torch.testing.assert_close(mixture.auxiliary_loss, 0.5 * 5 * sum(f[e] * p[e] for e in range(5)))


def test_balance_is_its_weight_when_all_are_equally_busy_and_more_otherwise():
    mixture = Experts(dim=4, num_experts=4, top_k=1, balance_weight=0.5)
    mixture.router.weight.data = 9 * torch.eye(4)
    mixture(torch.eye(4)[None])
    assert mixture.auxiliary_loss.item() == pytest.approx(0.5)
    mixture(torch.eye(4)[None, [0, 0, 0, 0]])
    assert mixture.auxiliary_loss.item() == pytest.approx(0.5 * 4, rel=0.01)


def test_an_expert_without_tokens_has_a_gradient_of_zeros(mixture):
    mixture.router.weight.data.zero_()[:3] = 1.0
    mixture(torch.ones(1, 4, 8)).sum().backward()
    assert all(p.grad is not None for p in mixture.parameters())
    assert [bool(e.down.weight.grad.any()) for e in mixture.experts] == [True, True, True, False, False]


def test_the_routers_of_all_layers_are_trained_to_balance(model):
    tokens = torch.randint(7, (2, 8))
    minimised, reported = NextToken().loss(model, tokens, tokens)
    losses = [block.mlp.auxiliary_loss for block in model.blocks]
    torch.testing.assert_close(minimised - reported, losses[0] + losses[1], atol=1e-6, rtol=0)
    minimised.backward()
    assert all(block.mlp.router.weight.grad.any() for block in model.blocks)


def test_only_chosen_experts_are_active(model):
    other = 2 * 7 * 16 + 2 * 4 * 16 * 16  # embedding and head; two layers of attention
    expert, router = 3 * 10 * 16, 4 * 16
    assert count_parameters(model) == other + 2 * (router + 4 * expert)
    assert count_active_parameters(model) == other + 2 * (router + expert)
    assert flops_per_token(model, 8) == 6 * (count_active_parameters(model) - 7 * 16) + 12 * 2 * 16 * 8


def test_experts_are_matrices_to_the_optimizer_and_outputs_to_the_initialisation(model):
    hidden = {id(p) for p in parameter_groups(model)[0]["params"] if p.ndim == 2}
    assert {id(p) for p in model.blocks[0].mlp.parameters()} <= hidden
    assert model.blocks[0].mlp.experts[0].down.weight.std().item() == pytest.approx(0.02 / 4**0.5, rel=0.3)


def test_a_mixture_keeps_the_type(mixture):
    assert mixture.bfloat16()(torch.randn(1, 2, 8).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("top_k", [0, 6])
def test_no_more_experts_are_chosen_than_there_are(top_k):
    with pytest.raises(ValueError, match=f"not top_k={top_k}"):
        Experts(dim=8, num_experts=5, top_k=top_k)
