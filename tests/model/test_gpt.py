"""Sizes, initialisation and components of the models."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions, RotaryPositions
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.layers import MLP, LayerNorm, ReLU2MLP, RMSNorm, SquaredReLU, SwiGLU, rms_norm
from minigpt.model.size import count_parameters, flops_per_token


def modern(**options):
    components = {"attention": partial(CausalSelfAttention, qk_norm=True), "mlp": ReLU2MLP, "norm": RMSNorm}
    sizes = {"vocab_size": 65, "block_size": 64, "num_layers": 4, "num_heads": 4, "dim": 128, "zero_init": True}
    return GPT(**sizes | components | {"positions": RotaryPositions} | options)


def gpt2(**options):
    components = {"attention": CausalSelfAttention, "mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}
    return modern(**components | {"tie_head": True, "zero_init": False} | options)


def test_the_modern_model_starts_with_equal_logits():
    logits = modern()(torch.randint(65, (2, 64)))
    assert logits.eq(0).all()


def test_gpt2_starts_near_the_uniform_loss():
    logits = gpt2()(torch.randint(65, (4, 64)))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.randint(65, (256,)))
    assert abs(loss.item() - 4.174) < 0.1  # ln 65


def test_gpt2_scales_residual_projections_by_depth():
    block = gpt2().blocks[0]
    assert block.attention.qkv_proj.weight.std().item() == pytest.approx(0.02, rel=0.03)
    for weight in (block.attention.out_proj.weight, block.mlp.down.weight):
        assert weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.03)


def test_tied_head_is_the_embedding():
    model = gpt2()
    assert model.head.weight is model.embedding.weight
    # 4 blocks of 12 D^2 and two norms, the final norm, 64 positions, 65 tokens once
    assert count_parameters(model) == 4 * (12 * 128**2 + 2 * 128) + 128 + 64 * 128 + 65 * 128


def test_nano_has_at_most_0_81_million_parameters():
    assert count_parameters(modern()) == 4 * 12 * 128**2 + 2 * 65 * 128 <= 810_000


def test_flops_per_token_equal_the_formula_of_palm():
    weights = 4 * 12 * 128**2 + 65 * 128
    assert flops_per_token(modern(), 64) == 6 * weights + 12 * 4 * 128 * 64


def test_dropout_is_off_in_evaluation():
    model = modern(dropout=0.5, zero_init=False)
    tokens = torch.randint(65, (1, 64))
    assert not torch.equal(model.train()(tokens), model(tokens))
    assert torch.equal(model.eval()(tokens), model(tokens))


def test_attention_weights_can_have_their_own_dropout():
    tokens = torch.randint(65, (1, 64))
    own = modern(dropout=0.0, attention_dropout=0.5, zero_init=False).train()
    assert not torch.equal(own(tokens), own(tokens))
    without = modern(dropout=0.5, attention_dropout=0.0, zero_init=False)
    assert {b.attention.dropout for b in without.blocks} == {0.0}
    assert {b.attention.dropout for b in modern(dropout=0.5).blocks} == {0.5}


@pytest.mark.parametrize(
    ("constructor", "formula"),
    [
        (MLP, lambda m, x: F.gelu(x @ m.up.weight.T) @ m.down.weight.T),
        (ReLU2MLP, lambda m, x: (x @ m.up.weight.T).clamp(min=0) ** 2 @ m.down.weight.T),
        (
            SwiGLU,
            lambda m, x: (F.silu(x @ m.gate_up.weight[:21].T) * (x @ m.gate_up.weight[21:].T)) @ m.down.weight.T,
        ),
    ],
)
def test_mlp_computes_its_formula(constructor, formula):
    mlp, x = constructor(dim=8), torch.randn(2, 3, 8)
    torch.testing.assert_close(mlp(x), formula(mlp, x))


def test_norms_compute_their_formulas():
    x = torch.randn(2, 3, 8) * 5 + 2
    centred = x - x.mean(-1, keepdim=True)
    standardised = centred / x.var(-1, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(LayerNorm(dim=8)(x), standardised, atol=1e-4, rtol=1e-4)
    unit = x / x.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(RMSNorm(dim=8)(x), unit)
    with torch.no_grad():
        torch.testing.assert_close(RMSNorm(dim=8)(x), unit)
    norm = RMSNorm(dim=8, elementwise_affine=True)
    norm.weight.data.normal_()
    torch.testing.assert_close(norm(x), unit * norm.weight)
    small = torch.full((8,), 1e-3)  # its mean square is the default eps
    torch.testing.assert_close(RMSNorm(dim=8)(small), torch.full((8,), 0.5**0.5))


@pytest.mark.parametrize("function", [rms_norm, SquaredReLU.apply])
def test_custom_backward_passes_are_the_derivatives(function):
    assert torch.autograd.gradcheck(function, torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"^model\.dim=128 must divide by model\.num_heads=3$"):
        gpt2(num_heads=3)
    with pytest.raises(ValueError, match=r"model\.dim=10 must divide"):  # before rotary positions refuse a width of 3
        modern(dim=10, num_heads=3)


def test_bigram_reads_one_token():
    model = Bigram(vocab_size=5, block_size=8)
    logits = model(torch.tensor([[1, 2, 1]]))
    assert torch.equal(logits[0, 0], logits[0, 2]) and torch.equal(logits[0, 0], model.table.weight[1])
