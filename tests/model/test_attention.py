"""Every attention: causal, the same fused and written out, the same with a cache."""

from functools import partial

import pytest
import torch

from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention
from minigpt.model.attention_variants import (
    SlidingWindowAttention,
    SoftcapAttention,
    StridedAttention,
    ValueResidualAttention,
)
from minigpt.model.context import Context
from minigpt.model.experts import Experts
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import LayerCache
from minigpt.model.mlp import MLP, ReLU2MLP, SwiGLU
from minigpt.model.norms import LayerNorm, RMSNorm
from minigpt.model.positions import (
    AlibiPositions,
    LearnedPositions,
    Positions,
    RotaryPositions,
    SinusoidalPositions,
)

T, D, H = 12, 32, 4
ATTENTIONS = {
    "causal": partial(CausalSelfAttention),
    "causal with biases": partial(CausalSelfAttention, bias=True),
    "qk_norm": partial(CausalSelfAttention, qk_norm=True),
    "grouped": partial(CausalSelfAttention, num_kv_heads=2, qk_norm=True),
    "multi-query": partial(CausalSelfAttention, num_kv_heads=1),
    "sliding window": partial(SlidingWindowAttention, window=4),
    "strided": partial(StridedAttention, stride=3),
    "softcap": partial(SoftcapAttention, cap=2.0),
    "value residual": partial(ValueResidualAttention, num_kv_heads=2),
}
# How far back the keys lie that a query sees, where it is not all of the past.
SEES = {SlidingWindowAttention: {0, 1, 2, 3}, StridedAttention: {0, 1, 2, 3, 6, 9}}
FUSIBLE = {name: attention for name, attention in ATTENTIONS.items() if attention.func is not SoftcapAttention}
POSITIONS = {
    "none": Positions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
    "alibi": AlibiPositions,
}

every_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
every_fusible_attention = pytest.mark.parametrize("attention", FUSIBLE.values(), ids=FUSIBLE)
every_position = pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)


def make(attention, positions, **options):
    scheme = positions(block_size=T, dim=D, head_dim=D // H)
    return attention(dim=D, num_heads=H, block_size=T, **options).eval(), Context(scheme)


def make_gpt(attention=ATTENTIONS["qk_norm"], positions=RotaryPositions, mlp=ReLU2MLP, norm=RMSNorm, **options):
    parts = {"attention": attention, "positions": positions, "mlp": mlp, "norm": norm}
    sizes = {"vocab_size": 11, "block_size": T, "num_layers": 2, "num_heads": H, "dim": D}
    return GPT(**sizes | parts | options).eval()


@every_attention
@every_position
def test_output_depends_on_the_past_alone(attention, positions):
    layer, context = make(attention, positions)
    x = torch.randn(1, T, D, requires_grad=True)
    for position in (0, 5, T - 1):
        (gradient,) = torch.autograd.grad(layer(x, Context(context.positions))[0, position].square().sum(), x)
        seen = gradient[0].abs().sum(dim=1).nonzero().flatten().tolist()
        assert seen == [key for key in range(T) if position - key in SEES.get(attention.func, range(T))]


@every_position
def test_bidirectional_output_depends_on_both_sides(positions):
    layer, context = make(BidirectionalAttention, positions)
    x = torch.randn(1, T, D, requires_grad=True)
    for position in (0, 5, T - 1):
        (gradient,) = torch.autograd.grad(layer(x, context)[0, position].square().sum(), x)
        assert gradient[0].abs().sum(dim=1).gt(0).all(), f"position {position} does not see all"
    q, k, v = layer.project(x, context)
    written = layer.attend(q, k, v, context)
    torch.testing.assert_close(layer.attend_fused(q, k, v, context), written, atol=1e-5, rtol=1e-5)


@every_fusible_attention
@every_position
def test_fused_equals_written_out(attention, positions):
    layer, context = make(attention, positions)
    x = torch.randn(3, T, D)
    q, k, v = layer.project(x, context)
    written, weights = layer.attend(q, k, v, context), layer.weights(x, context)
    torch.testing.assert_close(layer.attend_fused(q, k, v, context), written, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, H, T))
    assert weights.triu(1).eq(0).all()


@every_attention
@every_position
def test_rows_longer_than_a_chunk_equal_one_chunk(attention, positions, monkeypatch):
    layer, context = make(attention, positions)
    monkeypatch.setattr("minigpt.model.attention.CHUNK", 5)  # of 12: two whole ones and a rest
    x = torch.randn(3, T, D)
    q, k, v = (part.detach().requires_grad_() for part in layer.project(x, context))
    whole = layer.mix(q, layer.share_heads(k), layer.share_heads(v), context)
    chunks = layer.attend(q, k, v, context)
    torch.testing.assert_close(chunks, whole, atol=1e-5, rtol=1e-5)
    toward = torch.randn_like(whole)
    for found, expected in zip(*(torch.autograd.grad(out, (q, k, v), toward) for out in (chunks, whole)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    newest = layer.attend(q[:, :, 4:], k, v, context)  # as after four cached positions
    torch.testing.assert_close(newest, whole[:, :, 4:], atol=1e-5, rtol=1e-5)


def test_a_chunk_does_not_read_keys_ahead_of_it(monkeypatch):
    layer, context = make(ATTENTIONS["causal"], Positions)
    monkeypatch.setattr("minigpt.model.attention.CHUNK", 5)
    q, k, v = torch.randn(3, 1, H, T, D // H).unbind()
    k[:, :, 5:] = v[:, :, 5:] = torch.nan  # masked scores of NaN would still be NaN
    assert layer.attend(q, k, v, context)[:, :, :5].isfinite().all()


def assert_pieces_equal_the_whole(layer, context):
    x = torch.randn(2, T, D)
    cache = LayerCache()
    pieces = [layer(x[:, a:b], Context(context.positions, start=a), cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, T))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), layer(x, context), atol=1e-5, rtol=1e-5)


@every_attention
def test_cache_equals_reading_all_at_once(attention):
    assert_pieces_equal_the_whole(*make(attention, RotaryPositions, fused=False))


@every_fusible_attention
def test_cache_equals_reading_all_at_once_with_the_fused_kernel(attention):
    assert_pieces_equal_the_whole(*make(attention, AlibiPositions, fused=True))


def test_attention_equals_a_hand_worked_average():
    layer, context = make(ATTENTIONS["causal"], Positions)
    with torch.no_grad():  # no scores and values = input: each position is the mean of its past
        layer.query_key_value.weight.copy_(torch.cat((torch.zeros(2 * D, D), torch.eye(D))))
        layer.projection.weight.copy_(torch.eye(D))
    x = torch.randn(1, T, D)
    means = x.cumsum(dim=1) / torch.arange(1, T + 1)[:, None]
    torch.testing.assert_close(layer(x, context), means, atol=1e-5, rtol=1e-5)


def test_scores_are_divided_by_the_root_of_head_dim():
    layer, context = make(ATTENTIONS["causal"], Positions)
    q, k = torch.randn(2, 1, H, T, D // H).unbind()
    scores = (q @ k.mT / (D // H) ** 0.5).masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    torch.testing.assert_close(layer.weigh(q, k, context), scores.softmax(-1))


def test_softcap_bounds_the_scores_before_the_mask():
    layer, context = make(ATTENTIONS["softcap"], Positions)
    q, k = 3 * torch.randn(2, 1, H, T, D // H)
    scores = 2 * ((q @ k.mT / (D // H) ** 0.5) / 2).tanh()
    expected = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf")).softmax(-1)
    torch.testing.assert_close(layer.weigh(q, k, context), expected)
    assert layer.fused is False, "on every device"


def test_values_are_mixed_with_the_first_layers():
    layer, context = make(ATTENTIONS["value residual"], Positions)
    x = torch.randn(1, T, D)
    own = layer.heads(x, Context(context.positions))[2]
    context.first_values = torch.randn_like(own)
    layer.share.data.fill_(0.3)
    torch.testing.assert_close(layer.heads(x, context)[2], 0.3 * own + 0.7 * context.first_values)


def test_every_layer_gets_the_first_values_and_every_share_a_gradient():
    model = make_gpt(attention=ATTENTIONS["value residual"])
    model(torch.randint(11, (1, T))).square().sum().backward()
    first, second = (block.attention.share.grad.abs().item() for block in model.blocks)
    assert first == 0 < second


def test_sinusoids_are_those_of_the_paper():
    table = SinusoidalPositions(block_size=4, dim=4, head_dim=2).add(torch.zeros(1, 2, 4), start=1)
    expected = [[0.8414710, 0.5403023, 0.0099998, 0.9999500], [0.9092974, -0.4161468, 0.0199987, 0.9998000]]
    torch.testing.assert_close(table[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [(1, [2**-8]), (4, [2**-2, 2**-4, 2**-6, 2**-8]), (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])],
)
def test_alibi_takes_its_slope_times_the_distance(heads, slopes):
    scheme = AlibiPositions(block_size=T, dim=heads * 8, head_dim=8)
    layer = CausalSelfAttention(dim=heads * 8, num_heads=heads, block_size=T)
    q = torch.zeros(1, heads, 1, 8)  # the newest position, alike to all keys
    weights = layer.weigh(q, torch.randn(1, heads, 4, 8), Context(scheme))
    expected = (-torch.tensor(slopes)[:, None] * torch.tensor([3, 2, 1, 0])).softmax(-1)
    torch.testing.assert_close(weights[0, :, 0], expected)


def test_rotary_scores_depend_on_distance_alone():
    scheme = RotaryPositions(block_size=64, dim=D, head_dim=8)
    q, k = torch.randn(2, 1, 1, 1, 8).unbind()
    scores = [(scheme.rotate(q, start + 3) * scheme.rotate(k, start)).sum() for start in (0, 7, 50)]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])
    assert not torch.isclose(scores[0], (scheme.rotate(q, 4) * scheme.rotate(k, 0)).sum())


def test_rotary_turns_the_first_pair_by_one_radian_a_position():
    scheme = RotaryPositions(block_size=4, dim=4, head_dim=4)
    x = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
    turned = scheme.rotate(x, 1).flatten()
    torch.testing.assert_close(turned, torch.tensor([0.5403023, 0.0, 0.8414710, 0.0]))


@pytest.mark.parametrize("mlp", [MLP, ReLU2MLP, SwiGLU, partial(Experts, num_experts=3, top_k=2)])
@pytest.mark.parametrize("norm", [LayerNorm, RMSNorm])
@every_position
def test_gpt_is_causal(mlp, norm, positions):
    model = make_gpt(mlp=mlp, norm=norm, positions=positions)
    tokens = torch.randint(11, (1, T))
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 11
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert not torch.allclose(after[:, 6:], before[:, 6:])


@every_attention
@every_position
def test_gpt_with_a_cache_equals_without(attention, positions):
    model = make_gpt(attention=attention, positions=positions)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(11, (2, T))
    cache = model.make_cache()
    pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 4), (4, 5), (5, T))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), atol=1e-5, rtol=1e-5)


def test_gpt_gives_each_layers_attention_weights():
    weights = make_gpt().attention_weights(torch.randint(11, (2, T)))
    assert [w.shape for w in weights] == [(2, H, T, T)] * 2


@pytest.mark.parametrize("heads", [{"num_heads": 5}, {"num_heads": 4, "num_kv_heads": 3}])
def test_heads_must_divide(heads):
    with pytest.raises(ValueError, match="must divide"):
        CausalSelfAttention(dim=D, block_size=T, **heads)


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (partial(SlidingWindowAttention, window=0), "at least 1"),
        (partial(StridedAttention, stride=0), "at least 1"),
        (partial(SoftcapAttention, fused=True), "no fused kernel"),
    ],
)
def test_variants_refuse_what_makes_no_sense(part, says):
    with pytest.raises(ValueError, match=says):
        part(dim=D, num_heads=H, block_size=T)


def test_sinusoids_come_in_pairs():
    with pytest.raises(ValueError, match="must be even, not 9"):
        SinusoidalPositions(block_size=4, dim=9, head_dim=3)
