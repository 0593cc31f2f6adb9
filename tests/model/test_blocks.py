"""Blocks: causality, caches, and the backward pass of the convolution."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.convolution import CausalConvolution, ConvolutionBlock, ShortConvolution
from minigpt.model.embeddings import LearnedPositions, RotaryPositions
from minigpt.model.forward_context import ForwardContext
from minigpt.model.gpt import GPT, Block, NoResidualBlock, PostNormBlock
from minigpt.model.layers import LayerNorm, NoMLP, NoNorm, ReLUMLP

BLOCKS = [Block, PostNormBlock, NoResidualBlock, ConvolutionBlock, partial(ConvolutionBlock, width=1)]


def make(block, norm=LayerNorm, mlp=ReLUMLP, **options):
    components = {"attention": CausalSelfAttention, "positions": RotaryPositions, "mlp": mlp, "norm": norm}
    components |= options
    sizes = {"vocab_size": 11, "block_size": 12, "num_layers": 2, "num_heads": 2, "dim": 16}
    torch.manual_seed(1)
    model = GPT(**sizes, **components, block=block, init_std=0.2)
    with torch.no_grad():
        for parameter in model.parameters():  # convolutions start as the identity
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_causal_and_a_cache_changes_nothing(block):
    model, tokens = make(block), torch.randint(11, (2, 12))
    logits, changed = model(tokens), tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 11
    torch.testing.assert_close(model(changed)[:, :6], logits[:, :6])
    assert (model(changed)[:, 6:] - logits[:, 6:]).abs().amax(dim=(0, 2)).gt(1e-4).all()
    cache = model.make_cache()
    for _ in range(2):  # a cleared cache equals a new one
        pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 1), (1, 2), (2, 7), (7, 8), (8, 12))]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits, atol=1e-5, rtol=1e-5)
        cache.clear()


class Adds(torch.nn.Module):
    """A sublayer with the same output everywhere, whatever its input."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, *context):
        return torch.full_like(x, self.value)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize(
    ("block", "kept"),
    [(Block, (0, 1)), (PostNormBlock, (0, 1)), (ConvolutionBlock, (0, 1)), (NoResidualBlock, (0,))],
    ids=str,
)
def test_the_output_of_each_sublayer_is_dropped_by_itself(block, kept, cross):
    """With a probability of one half each output becomes 0 or twice itself: the sum shows which."""
    cross_attention = Adds(5.0) if cross else None
    layer = block(
        dim=16, attention=Adds(0.5), cross_attention=cross_attention, mlp=Adds(50.0), norm=NoNorm, dropout=0.5
    )
    x, context = torch.full((64, 64, 16), 1000.0), ForwardContext(make(Block).positions)
    residual = [1000 + a + c for a in (0, 1) for c in ((0, 10) if cross else (0,))] if 1 in kept else [0]
    expected = torch.tensor(sorted(r + m for m in (0, 100) for r in residual), dtype=torch.float)
    values, counts = layer(x, context).unique(return_counts=True)
    assert torch.equal(values, expected)
    assert (counts / x.numel()).tolist() == pytest.approx([1 / len(expected)] * len(expected), abs=0.01)
    (value,) = layer.eval()(x, context).unique().tolist()
    assert value == (1050.5 + 5 * cross if 1 in kept else 50)


def test_the_sum_of_embedding_and_position_is_dropped():
    model = make(Block, dropout=0.5, positions=LearnedPositions, norm=NoNorm).train()
    model.blocks = torch.nn.ModuleList()
    model.embedding.weight.data.fill_(1.0)
    model.positions.embedding.weight.data.fill_(2.0)
    values, counts = model.hidden(torch.zeros(256, 12, dtype=torch.long)).unique(return_counts=True)
    assert values.tolist() == [0, 6] and (counts / counts.sum()).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert model.eval().hidden(torch.zeros(1, 12, dtype=torch.long)).unique().tolist() == [3]


def test_post_norm_normalises_the_residual_stream():
    model = make(PostNormBlock, norm=partial(LayerNorm, bias=False), final_norm=False)
    for norm in (m for m in model.modules() if isinstance(m, LayerNorm)):
        norm.weight.data.fill_(1.0)
    hidden = model.hidden(torch.randint(11, (2, 12)))
    torch.testing.assert_close(hidden.mean(dim=-1), torch.zeros(2, 12), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(dim=-1, unbiased=False), torch.ones(2, 12), atol=1e-3, rtol=0)


def test_without_residuals_norms_and_mlps_a_block_is_its_attention():
    model = make(NoResidualBlock, norm=NoNorm, mlp=NoMLP)
    assert {name.split(".")[1] for name, _ in model.blocks.named_parameters()} == {"attention"}
    x, context = torch.randn(1, 12, 16), ForwardContext(model.positions)
    block = model.blocks[0]
    torch.testing.assert_close(block(x, context), block.attention(x, context))


def test_convolution_equals_torchs_and_its_gradients_are_correct():
    layer = ShortConvolution(dim=3, width=4)
    for weight in layer.weights:
        weight.data.normal_()
    x = torch.randn(2, 7, 3)
    kernel = torch.stack(list(layer.weights)).flip(0).T[:, None]  # torch's kernel starts with the oldest
    expected = x + F.conv1d(F.pad(x, (0, 0, 3, 0)).mT, kernel, groups=3).mT
    torch.testing.assert_close(layer(x), expected)
    inputs = (torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(CausalConvolution.apply, tuple(i.requires_grad_() for i in inputs))
