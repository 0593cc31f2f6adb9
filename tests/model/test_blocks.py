"""Every block: causal, the same with a cache, and the convolution's own backward pass."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.context import Context
from minigpt.model.convolution import CausalConvolution, ConvolutionBlock, ShortConvolution
from minigpt.model.gpt import GPT, Block, NoResidualBlock, PostNormBlock
from minigpt.model.mlp import NoMLP, ReLUMLP
from minigpt.model.norms import LayerNorm, NoNorm
from minigpt.model.positions import RotaryPositions

BLOCKS = [Block, PostNormBlock, NoResidualBlock, ConvolutionBlock, partial(ConvolutionBlock, width=1)]


def make(block, norm=LayerNorm, mlp=ReLUMLP, **options):
    parts = {"attention": CausalSelfAttention, "positions": RotaryPositions, "mlp": mlp, "norm": norm, "block": block}
    torch.manual_seed(1)
    model = GPT(vocab_size=11, block_size=12, num_layers=2, num_heads=2, dim=16, init_std=0.2, **parts, **options)
    with torch.no_grad():
        for parameter in model.parameters():  # the convolutions begin as the identity
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_sees_the_past_alone_and_a_cache_changes_nothing(block):
    model, tokens = make(block), torch.randint(11, (2, 12))
    logits, changed = model(tokens), tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 11
    torch.testing.assert_close(model(changed)[:, :6], logits[:, :6])
    assert (model(changed)[:, 6:] - logits[:, 6:]).abs().amax(dim=(0, 2)).gt(1e-4).all()
    cache = model.make_cache()
    for _ in range(2):  # a cleared cache is as good as a new one
        pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 1), (1, 2), (2, 7), (7, 8), (8, 12))]
        torch.testing.assert_close(torch.cat(pieces, dim=1), logits, atol=1e-5, rtol=1e-5)
        cache.clear()


def test_post_norm_leaves_a_normalised_stream():
    x = make(PostNormBlock, norm=partial(LayerNorm, bias=False), final_norm=False)
    for gain in (m.gain for m in x.modules() if isinstance(m, LayerNorm)):
        gain.data.fill_(1.0)
    hidden = x.hidden(torch.randint(11, (2, 12)))
    torch.testing.assert_close(hidden.mean(dim=-1), torch.zeros(2, 12), atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden.var(dim=-1, unbiased=False), torch.ones(2, 12), atol=1e-3, rtol=0)


def test_without_residuals_norms_and_mlps_a_block_is_its_attention():
    model = make(NoResidualBlock, norm=NoNorm, mlp=NoMLP)
    assert {name.split(".")[1] for name, _ in model.blocks.named_parameters()} == {"attention"}
    x, context = torch.randn(1, 12, 16), Context(model.positions)
    block = model.blocks[0]
    torch.testing.assert_close(block(x, context), block.attention(x, context))


def test_convolution_equals_torch_and_its_gradients_are_right():
    layer = ShortConvolution(dim=3, width=4)
    for weight in layer.weights:
        weight.data.normal_()
    x = torch.randn(2, 7, 3)
    kernel = torch.stack(list(layer.weights)).flip(0).T[:, None]  # torch's reads from the oldest to the newest
    expected = x + F.conv1d(F.pad(x, (0, 0, 3, 0)).mT, kernel, groups=3).mT
    torch.testing.assert_close(layer(x), expected)
    inputs = (torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(CausalConvolution.apply, tuple(i.requires_grad_() for i in inputs))
