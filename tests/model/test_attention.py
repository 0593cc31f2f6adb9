"""Attentions and position schemes: causality, fused and eager kernels, chunks, caches."""

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
from minigpt.model.convolution import ConvolutionBlock
from minigpt.model.embeddings import (
    AlibiPositions,
    LearnedPositions,
    Positions,
    RotaryPositions,
    SinusoidalPositions,
)
from minigpt.model.forward_context import ForwardContext
from minigpt.model.gpt import GPT, Block, PostNormBlock
from minigpt.model.kv_cache import LayerCache
from minigpt.model.layers import MLP, LayerNorm, ReLU2MLP, RMSNorm, SwiGLU, TanhGELUMLP
from minigpt.model.moe import MixtureOfExperts

T, D, H = 12, 32, 4
ATTENTIONS = {
    "causal": partial(CausalSelfAttention),
    "causal with biases": partial(CausalSelfAttention, bias=True),
    "qk_norm": partial(CausalSelfAttention, qk_norm=True),
    "grouped": partial(CausalSelfAttention, num_kv_heads=2, qk_norm=True),
    "multi-query": partial(CausalSelfAttention, num_kv_heads=1),
    "sliding window": partial(SlidingWindowAttention, window=4),
    "strided": partial(StridedAttention, stride=3),
    "softcap": partial(SoftcapAttention, softcap=2.0),
    "value residual": partial(ValueResidualAttention, num_kv_heads=2),
}
# Distances of the keys that a query attends to, where these are not all earlier ones.
ATTENDS_TO = {SlidingWindowAttention: {0, 1, 2, 3}, StridedAttention: {0, 1, 2, 3, 6, 9}}
HAS_FUSED_KERNEL = {name: attention for name, attention in ATTENTIONS.items() if attention.func is not SoftcapAttention}
POSITIONS = {
    "none": Positions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
    "alibi": AlibiPositions,
}

every_attention = pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
every_attention_with_a_fused_kernel = pytest.mark.parametrize(
    "attention", HAS_FUSED_KERNEL.values(), ids=HAS_FUSED_KERNEL
)
every_position = pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)


def make(attention, positions, **options):
    scheme = positions(block_size=T, dim=D, head_dim=D // H)
    return attention(dim=D, num_heads=H, block_size=T, **options).eval(), ForwardContext(scheme)


def make_gpt(attention=ATTENTIONS["qk_norm"], positions=RotaryPositions, mlp=ReLU2MLP, norm=RMSNorm, **options):
    components = {"attention": attention, "positions": positions, "mlp": mlp, "norm": norm}
    sizes = {"vocab_size": 11, "block_size": T, "num_layers": 2, "num_heads": H, "dim": D}
    return GPT(**sizes | components | options).eval()


@every_attention
@every_position
def test_output_depends_on_earlier_positions_alone(attention, positions):
    layer, context = make(attention, positions)
    x = torch.randn(1, T, D, requires_grad=True)
    for position in (0, 5, T - 1):
        (gradient,) = torch.autograd.grad(layer(x, ForwardContext(context.positions))[0, position].square().sum(), x)
        attended = gradient[0].abs().sum(dim=1).nonzero().flatten().tolist()
        assert attended == [key for key in range(T) if position - key in ATTENDS_TO.get(attention.func, range(T))]


@every_position
def test_bidirectional_output_depends_on_both_sides(positions):
    layer, context = make(BidirectionalAttention, positions)
    x = torch.randn(1, T, D, requires_grad=True)
    for position in (0, 5, T - 1):
        (gradient,) = torch.autograd.grad(layer(x, context)[0, position].square().sum(), x)
        assert gradient[0].abs().sum(dim=1).gt(0).all(), f"position {position} does not attend to all"
    q, k, v = layer.qkv(x, context)
    eager = layer.eager(q, k, v, context)
    torch.testing.assert_close(layer.sdpa(q, k, v, context), eager, atol=1e-5, rtol=1e-5)


@every_attention_with_a_fused_kernel
@every_position
def test_the_fused_kernel_equals_eager_attention(attention, positions):
    layer, context = make(attention, positions)
    x = torch.randn(3, T, D)
    q, k, v = layer.qkv(x, context)
    eager, weights = layer.eager(q, k, v, context), layer.attention_map(x, context)
    torch.testing.assert_close(layer.sdpa(q, k, v, context), eager, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, H, T))
    assert weights.triu(1).eq(0).all()


@every_attention
@every_position
def test_attention_in_chunks_equals_attention_in_one(attention, positions, monkeypatch):
    layer, context = make(attention, positions)
    x = torch.randn(3, T, D)
    q, k, v = (each.detach().requires_grad_() for each in layer.qkv(x, context))
    whole = layer.eager(q, k, v, context)
    monkeypatch.setattr("minigpt.model.attention_cpu.CHUNK", 5)  # T = 12 makes two full chunks and a shorter one
    chunks = layer.eager(q, k, v, context)
    torch.testing.assert_close(chunks, whole, atol=1e-5, rtol=1e-5)
    grad_output = torch.randn_like(whole)
    gradients = (torch.autograd.grad(out, (q, k, v), grad_output) for out in (chunks, whole))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    newest = layer.eager(q[:, :, 4:], k, v, context)  # as with four cached positions
    torch.testing.assert_close(newest, whole[:, :, 4:], atol=1e-5, rtol=1e-5)


def test_a_chunk_does_not_read_keys_ahead_of_it(monkeypatch):
    layer, context = make(ATTENTIONS["causal"], Positions)
    monkeypatch.setattr("minigpt.model.attention_cpu.CHUNK", 5)
    q, k, v = torch.randn(3, 1, H, T, D // H).unbind()
    k[:, :, 5:] = v[:, :, 5:] = torch.nan  # a masked NaN would still be NaN
    assert layer.eager(q, k, v, context)[:, :, :5].isfinite().all()


def assert_pieces_equal_the_whole(layer, context):
    x = torch.randn(2, T, D)
    cache = LayerCache()
    spans = ((0, 5), (5, 6), (6, 9), (9, T))
    pieces = [layer(x[:, a:b], ForwardContext(context.positions, start=a), cache) for a, b in spans]
    torch.testing.assert_close(torch.cat(pieces, dim=1), layer(x, context), atol=1e-5, rtol=1e-5)


@every_attention
def test_a_cache_changes_nothing_with_eager_attention(attention):
    assert_pieces_equal_the_whole(*make(attention, RotaryPositions, fused=False))


@every_attention_with_a_fused_kernel
def test_a_cache_changes_nothing_with_the_fused_kernel(attention):
    assert_pieces_equal_the_whole(*make(attention, AlibiPositions, fused=True))


def test_attention_equals_a_hand_worked_average():
    layer, context = make(ATTENTIONS["causal"], Positions)
    with torch.no_grad():  # zero scores and values = input: the output is the mean over earlier positions
        layer.qkv_proj.weight.copy_(torch.cat((torch.zeros(2 * D, D), torch.eye(D))))
        layer.out_proj.weight.copy_(torch.eye(D))
    x = torch.randn(1, T, D)
    means = x.cumsum(dim=1) / torch.arange(1, T + 1)[:, None]
    torch.testing.assert_close(layer(x, context), means, atol=1e-5, rtol=1e-5)


def test_scores_are_divided_by_the_square_root_of_head_dim():
    layer, context = make(ATTENTIONS["causal"], Positions)
    q, k = torch.randn(2, 1, H, T, D // H).unbind()
    scores = (q @ k.mT / (D // H) ** 0.5).masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
    torch.testing.assert_close(layer.attention_probs(q, k, context), scores.softmax(-1))


def test_softcap_bounds_the_scores_before_the_mask():
    layer, context = make(ATTENTIONS["softcap"], Positions)
    q, k = 3 * torch.randn(2, 1, H, T, D // H)
    scores = 2 * ((q @ k.mT / (D // H) ** 0.5) / 2).tanh()
    expected = scores.masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf")).softmax(-1)
    torch.testing.assert_close(layer.attention_probs(q, k, context), expected)
    assert layer.fused is False, "on every device"


def test_values_are_mixed_with_those_of_the_first_layer():
    layer, context = make(ATTENTIONS["value residual"], Positions)
    x = torch.randn(1, T, D)
    own = layer.qkv(x, ForwardContext(context.positions))[2]
    context.first_values = torch.randn_like(own)
    layer.share.data.fill_(0.3)
    torch.testing.assert_close(layer.qkv(x, context)[2], 0.3 * own + 0.7 * context.first_values)


def test_every_layer_reads_the_first_values():
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
    [
        (1, [2**-8]),
        (4, [2**-2, 2**-4, 2**-6, 2**-8]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (8, [2**-i for i in range(1, 9)]),
    ],
)
def test_alibi_subtracts_slope_times_distance(heads, slopes):
    scheme = AlibiPositions(block_size=T, dim=heads * 8, head_dim=8)
    layer = CausalSelfAttention(dim=heads * 8, num_heads=heads, block_size=T)
    q = torch.zeros(1, heads, 1, 8)  # the newest position, with equal scores for all keys
    weights = layer.attention_probs(q, torch.randn(1, heads, 4, 8), ForwardContext(scheme))
    expected = (-torch.tensor(slopes)[:, None] * torch.tensor([3, 2, 1, 0])).softmax(-1)
    torch.testing.assert_close(weights[0, :, 0], expected)


def test_rotary_scores_depend_on_distance_alone():
    scheme = RotaryPositions(block_size=64, dim=D, head_dim=8)
    q, k = torch.randn(2, 1, 1, 1, 8).unbind()
    scores = [(scheme.rotate(q, start + 3) * scheme.rotate(k, start)).sum() for start in (0, 7, 50)]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])
    assert not torch.isclose(scores[0], (scheme.rotate(q, 4) * scheme.rotate(k, 0)).sum())


def test_rotary_rotates_the_first_pair_by_one_radian_per_position():
    scheme = RotaryPositions(block_size=4, dim=4, head_dim=4)
    x = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(scheme.rotate(x, 1).flatten(), torch.tensor([0.5403023, 0.0, 0.8414710, 0.0]))


@pytest.mark.parametrize("mlp", [MLP, TanhGELUMLP, ReLU2MLP, SwiGLU, partial(MixtureOfExperts, num_experts=3, top_k=2)])
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
def test_a_cache_changes_nothing_in_a_gpt(attention, positions):
    model = make_gpt(attention=attention, positions=positions)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens = torch.randint(11, (2, T))
    cache = model.make_cache()
    pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 4), (4, 5), (5, T))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [Block, ConvolutionBlock])
def test_sequences_of_a_gpt_s_cache_can_be_reordered(block):
    model = make_gpt(block=block)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    tokens, order = torch.randint(11, (3, T)), torch.tensor([2, 0, 0])
    cache = model.make_cache()
    model(tokens[:, :5], cache)
    cache.reorder(order)
    expected = model(torch.cat((tokens[order, :5], tokens[:, 5:]), dim=1))[:, 5:]
    torch.testing.assert_close(model(tokens[:, 5:], cache), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", [Block, PostNormBlock, ConvolutionBlock])
def test_attention_maps_are_the_weights_that_each_layer_applies(block):
    model = make_gpt(attention=ATTENTIONS["causal"], block=block)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    outputs = []
    for layer in model.blocks:
        layer.attention.register_forward_hook(lambda module, inputs, output: outputs.append((*inputs[:2], output)))
    maps = model.attention_maps(torch.randint(11, (2, T)))
    assert [m.shape for m in maps] == [(2, H, T, T)] * 2
    for layer, weights, (x, context, output) in zip(model.blocks, maps, outputs, strict=True):
        values = layer.attention.qkv(x, context)[2]
        expected = layer.attention.out_proj((weights @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    model(torch.randint(11, (2, T)))
    assert len(maps) == 2, "recording ends with the call"


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({"num_heads": 5}, "model.dim=32 must divide by model.num_heads=5"),
        (
            {"num_heads": 4, "num_kv_heads": 3},
            "model.num_heads=4 must divide by model.attention.num_kv_heads=3",
        ),
    ],
)
def test_heads_must_divide(heads, message):
    with pytest.raises(ValueError, match=message):
        CausalSelfAttention(dim=D, block_size=T, **heads)


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (partial(SlidingWindowAttention, window=0), "at least 1"),
        (partial(StridedAttention, stride=0), "at least 1"),
        (partial(SoftcapAttention, fused=True), "no fused kernel"),
    ],
)
def test_variants_refuse_impossible_options(attention, message):
    with pytest.raises(ValueError, match=message):
        attention(dim=D, num_heads=H, block_size=T)


def test_sinusoidal_positions_need_an_even_dim():
    with pytest.raises(ValueError, match=r"model\.dim must be even, not 9"):
        SinusoidalPositions(block_size=4, dim=9, head_dim=3)


def test_rotary_positions_need_an_even_head_dim():
    with pytest.raises(ValueError, match=r"need an even head_dim, not 3: change model\.num_heads"):
        RotaryPositions(block_size=4, dim=9, head_dim=3)
