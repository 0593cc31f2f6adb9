"""Which parameter is trained how, and whether Muon does what its formula says."""

from functools import partial

import numpy as np
import pytest
import torch

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm
from minigpt.training.optimizers import Muon, orthogonalize, parameter_groups, polar_polynomials


@pytest.fixture
def model():
    parts = {"attention": CausalSelfAttention, "mlp": partial(MLP, bias=True), "norm": LayerNorm}
    sizes = {"vocab_size": 7, "block_size": 8, "num_layers": 2, "num_heads": 2, "dim": 16}
    return GPT(**sizes, **parts, positions=LearnedPositions, tie_head=True)


def make_muon(model, **options):
    return Muon(parameter_groups(model), **{"momentum": 0.95, "adamw_lr": 0.01, "weight_decay": 0.0} | options)


def test_every_parameter_is_in_the_group_of_its_role(model):
    groups = {group["role"]: group for group in parameter_groups(model)}
    names = {id(p): name for name, p in model.named_parameters()}
    found = {role: {names[id(p)] for p in group["params"]} for role, group in groups.items()}
    assert found["embedding"] == {"embedding.weight", "positions.embedding.weight"}
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in found["hidden"])
    assert len(found["hidden"]) == 2 * 4
    assert found["vector"] == set(names.values()) - found["hidden"] - found["embedding"]
    assert all(name.endswith(("norm.weight", "bias")) for name in found["vector"])


def test_a_head_of_its_own_is_a_table(model):
    untied = GPT(
        **{"vocab_size": 7, "block_size": 8, "num_layers": 1, "num_heads": 2, "dim": 16, "norm": LayerNorm},
        **{"attention": CausalSelfAttention, "mlp": MLP, "positions": LearnedPositions},
    )
    (tables,) = [group["params"] for group in parameter_groups(untied) if group["role"] == "embedding"]
    expected = (untied.embedding.weight, untied.positions.embedding.weight, untied.head.weight)
    assert {id(p) for p in tables} == {id(p) for p in expected}


def test_only_matrices_are_decayed(model):
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.1, weight_decay=0.5)
    before = {name: p.clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, before[name] * (0.95 if p.ndim == 2 else 1.0))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 64), (2, 64, 16)])
def test_orthogonalize_finds_the_nearest_orthogonal_matrix(shape):
    matrices = torch.randn(shape)
    result = orthogonalize(matrices, polar_polynomials(10))
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    torch.testing.assert_close(result, u @ v, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("count", "error"), [(1, 0.9748), (2, 0.8984), (3, 0.6464), (4, 0.1982), (5, 0.004932)])
def test_the_polynomials_are_the_best_for_their_interval(count, error):
    """Chebyshev: the best one's error reaches its largest size four times, with the sign in apply_rotary."""
    x = np.geomspace(0.003, 1, 100_001)
    for a, b, c in polar_polynomials(count):
        before, x = x, a * x + b * x**3 + c * x**5
    assert np.abs(1 - x).max() == pytest.approx(error, rel=0.01)
    ordered = (1 - x)[np.argsort(before)]
    extremes = np.sign(ordered[np.abs(ordered) > 0.999 * error])
    assert np.flatnonzero(np.diff(extremes)).size == 3


def test_muon_steps_by_momentum_orthogonalised_and_scaled(model):
    optimizer = make_muon(model, lr=0.1, momentum=0.9, weight_decay=0.5)
    weight = model.blocks[0].mlp.up.weight  # [64, 16]
    expected, momentum = weight.detach().clone(), torch.zeros_like(weight)
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        momentum = 0.9 * momentum + 0.1 * weight.grad
        update = orthogonalize((0.1 * weight.grad + 0.9 * momentum)[None], polar_polynomials(3))[0]
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * (64 / 16) ** 0.5 * update
        optimizer.step()
        torch.testing.assert_close(weight.detach(), expected, atol=2e-5, rtol=1e-4)


def test_all_else_gets_adamw(model):
    optimizer = make_muon(model, lr=0.1, adamw_lr=0.01, weight_decay=0.5)
    twin = [p.detach().clone().requires_grad_() for p in (model.embedding.weight, model.norm.weight)]
    reference = torch.optim.AdamW(
        [{"params": [twin[0]]}, {"params": [twin[1]], "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
        eps=1e-10,
        weight_decay=0.5,
    )
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        twin[0].grad, twin[1].grad = model.embedding.weight.grad.clone(), model.norm.weight.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(model.embedding.weight, twin[0])
    torch.testing.assert_close(model.norm.weight, twin[1])


def test_muons_state_survives_saving(model):
    optimizer = make_muon(model, lr=0.1)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    saved = optimizer.state_dict()
    fresh = make_muon(model, lr=0.7)
    fresh.load_state_dict(saved)
    assert fresh.param_groups[0]["lr"] == 0.1 and fresh.param_groups[1]["lr"] == 0.01
    weight = model.blocks[0].mlp.up.weight
    assert torch.equal(fresh.state[weight]["momentum"], optimizer.state[weight]["momentum"])
