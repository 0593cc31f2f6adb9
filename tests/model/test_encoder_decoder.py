"""The encoder-decoder: parity with torch's Transformer, and the masks of both sides."""

from functools import partial

import pytest
import torch
from torch import nn

from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention, CrossAttention
from minigpt.model.embeddings import LearnedPositions, Positions, RotaryPositions
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.forward_context import ForwardContext
from minigpt.model.gpt import Block, PostNormBlock
from minigpt.model.layers import LayerNorm, ReLUMLP
from minigpt.model.size import flops_per_token

V, S, T, D, H = 13, 9, 7, 16, 2
PADDING = V - 1


def make(positions=Positions, block=PostNormBlock, **options):
    """A small model of the paper, with all of its biases and with large weights."""
    components = {"attention": CausalSelfAttention, "encoder_attention": BidirectionalAttention}
    components |= {"cross_attention": CrossAttention, "mlp": ReLUMLP, "norm": LayerNorm}
    components = {name: partial(component, bias=True) for name, component in components.items()}
    sizes = {"vocab_size": V, "block_size": S, "num_layers": 2, "num_heads": H, "dim": D}
    model = EncoderDecoder(positions=positions, block=block, **sizes | components | options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def make_tokens():
    """Two sources, the second with three ids of padding, and two prefixes of targets."""
    source, target = torch.randint(PADDING, (2, S)), torch.randint(PADDING, (2, T))
    source[1, -3:] = PADDING
    return source, target


def torch_parameters(layer, is_decoder):
    """The parameters of a layer of torch, in the order of `our_parameters`."""
    attentions = [layer.self_attn, layer.multihead_attn] if is_decoder else [layer.self_attn]
    norms = [layer.norm1, layer.norm2, layer.norm3] if is_decoder else [layer.norm1, layer.norm2]
    inputs = [p for a in attentions for p in (a.in_proj_weight, a.in_proj_bias)]
    outputs = [p for a in attentions for p in a.out_proj.parameters()]
    return [*inputs, *outputs, *(p for m in (layer.linear1, layer.linear2, *norms) for p in m.parameters())]


def our_parameters(block):
    """The parameters of one of our blocks."""
    own, cross = block.attention, block.cross_attention
    inputs = list(own.qkv_proj.parameters())
    if cross is not None:
        inputs += [torch.cat(both) for both in zip(cross.q_proj.parameters(), cross.kv_proj.parameters(), strict=True)]
    outputs = [own.out_proj, *([] if cross is None else [cross.out_proj]), block.mlp.up, block.mlp.down]
    norms = [n for n in (block.attention_norm, block.cross_norm, block.mlp_norm) if n is not None]
    return [*inputs, *(p for m in (*outputs, *norms) for p in m.parameters())]


@torch.no_grad()
@pytest.mark.parametrize("block", [Block, PostNormBlock])
@pytest.mark.parametrize("fused", [True, False])
def test_it_equals_torchs_transformer(block, fused, monkeypatch):
    monkeypatch.setattr("minigpt.model.attention_cpu.CHUNK", 3)  # shorter than the sequences
    attentions = {"attention": CausalSelfAttention, "encoder_attention": BidirectionalAttention}
    attentions |= {"cross_attention": CrossAttention}
    ours = make(block=block, **{name: partial(a, bias=True, fused=fused) for name, a in attentions.items()})
    layer = {"d_model": D, "nhead": H, "dim_feedforward": 4 * D, "dropout": 0.0, "batch_first": True}
    layer |= {"norm_first": block is Block}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, nn.LayerNorm(D), enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 2, nn.LayerNorm(D))
    for stack, blocks, norm in ((encoder, ours.encoder.blocks, ours.encoder.norm), (decoder, ours.blocks, ours.norm)):
        theirs = [
            *(p for one in stack.layers for p in torch_parameters(one, stack is decoder)),
            *stack.norm.parameters(),
        ]
        own = [*(p for one in blocks for p in our_parameters(one)), *norm.parameters()]
        for parameter, value in zip(theirs, own, strict=True):
            parameter.copy_(value)
    source, target = make_tokens()
    embed = ours.embedding
    padding, causal = source == PADDING, torch.ones(T, T).triu(1).bool()
    memory = encoder(embed(source), src_key_padding_mask=padding)
    hidden = decoder(embed(target), memory, tgt_mask=causal, memory_key_padding_mask=padding)
    torch.testing.assert_close(ours((source, target)), ours.head(hidden), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", [Positions, LearnedPositions, RotaryPositions])
def test_the_decoder_attends_to_its_past_and_to_the_source_without_padding(positions):
    model = make(positions)
    source, target = make_tokens()
    inputs = {}
    for stack, name in ((model.encoder, "source"), (model, "target")):  # record the input of each stack's first block
        add = stack.positions.add
        stack.positions.add = lambda x, start, a=add, name=name: inputs.setdefault(name, a(x, start)).requires_grad_()
    logits = model((source, target))
    for position in (0, 4, T - 1):
        loss = logits[:, position].square().sum()
        gradients = torch.autograd.grad(loss, (inputs["source"], inputs["target"]), retain_graph=True)
        of_source, of_target = (g.abs().sum(dim=2) for g in gradients)
        assert of_target[:, position + 1 :].eq(0).all(), "the future"
        assert of_target[:, : position + 1].gt(0).all(), "the past"
        assert of_source[source != PADDING].gt(0).all() and of_source[source == PADDING].eq(0).all()


def test_more_padding_changes_nothing():
    model = make(LearnedPositions)
    source, target = make_tokens()
    torch.testing.assert_close(model((source[1:], target[1:])), model((source[1:, :-3], target[1:])))


@pytest.mark.parametrize("positions", [Positions, LearnedPositions, RotaryPositions])
def test_decoding_with_a_cache_equals_that_without(positions):
    model = make(positions)
    source, target = make_tokens()
    cache, encoded = model.make_cache(), model.encode(source)
    padding = encoded["memory_padding"]
    pieces = [model.decode(target[:, :3], cache, **encoded)]
    model.encoder = None  # the cache has its output
    pieces += [model.decode(target[:, t : t + 1], cache, memory_padding=padding) for t in (3, 4)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model.decode(target[:, :5], **encoded), atol=1e-5, rtol=1e-5)


def test_sequences_of_a_cache_can_be_reordered():
    model = make(RotaryPositions)
    source, target = make_tokens()
    encoded = model.encode(source[:1].expand(2, -1))
    cache = model.make_cache()
    model.decode(target[:, :3], cache, **encoded)
    cache.reorder(torch.tensor([1, 1]))
    after = model.decode(target[:, 3:4], cache, **encoded)
    both = torch.cat((target[1:, :3].expand(2, -1), target[:, 3:4]), dim=1)
    torch.testing.assert_close(after, model.decode(both, **encoded)[:, -1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_bidirectional_attention_attends_to_both_sides(fused):
    layer = BidirectionalAttention(dim=D, num_heads=H, block_size=S, fused=fused)
    x = torch.randn(1, S, D, requires_grad=True)
    context = ForwardContext(RotaryPositions(block_size=S, dim=D, head_dim=D // H))
    (gradient,) = torch.autograd.grad(layer(x[:, :5], context)[0, 2].square().sum(), x)
    assert gradient[0, :5].abs().sum(dim=1).gt(0).all() and gradient[0, 5:].eq(0).all()


def test_the_embedding_is_shared_and_the_encoder_has_no_head():
    model = make(tie_head=True)
    assert model.encoder.embedding is model.embedding and model.head.weight is model.embedding.weight
    assert [n for n, p in model.named_parameters() if V in p.shape] == ["embedding.weight"]
    blocks = sum(m.weight.numel() for n, m in model.named_modules() if "blocks." in n and isinstance(m, nn.Linear))
    assert (
        flops_per_token(model, S) == 6 * (blocks + V * D) + 12 * 6 * D * S
    )  # 2 encoder layers, and 2 decoder layers with 2 attentions each
