"""The encoder-decoder: torch's own on the same weights, and what each side may see."""

from functools import partial

import pytest
import torch
from torch import nn

from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention, CrossAttention
from minigpt.model.context import Context
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import Block, PostNormBlock, flops_per_token
from minigpt.model.mlp import ReLUMLP
from minigpt.model.norms import LayerNorm
from minigpt.model.positions import LearnedPositions, Positions, RotaryPositions

V, S, T, D, H = 13, 9, 7, 16, 2
PADDING = V - 1


def make(positions=Positions, block=PostNormBlock, **options):
    """The paper's model, small, with all of its biases and with weights that are large enough to matter."""
    parts = {"attention": CausalSelfAttention, "encoder_attention": BidirectionalAttention}
    parts |= {"cross_attention": CrossAttention, "mlp": ReLUMLP, "norm": LayerNorm}
    parts = {name: partial(part, bias=True) for name, part in parts.items()}
    sizes = {"vocab_size": V, "block_size": S, "num_layers": 2, "num_heads": H, "dim": D}
    model = EncoderDecoder(positions=positions, block=block, **sizes | parts | options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def make_tokens():
    """Two sources, the second with three ids of padding, and two beginnings of targets."""
    source, target = torch.randint(PADDING, (2, S)), torch.randint(PADDING, (2, T))
    source[1, -3:] = PADDING
    return source, target


def torchs_parts(layer, is_decoder):
    """The parts of one of torch's layers in the order of `our_parts`."""
    attentions = [layer.self_attn, layer.multihead_attn] if is_decoder else [layer.self_attn]
    norms = [layer.norm1, layer.norm2, layer.norm3] if is_decoder else [layer.norm1, layer.norm2]
    inputs = [p for a in attentions for p in (a.in_proj_weight, a.in_proj_bias)]
    outputs = [p for a in attentions for p in a.out_proj.parameters()]
    return [*inputs, *outputs, *(p for m in (layer.linear1, layer.linear2, *norms) for p in m.parameters())]


def our_parts(block):
    """The same of one of our blocks."""
    own, cross = block.attention, block.cross_attention
    inputs = list(own.query_key_value.parameters())
    if cross is not None:
        inputs += [torch.cat(both) for both in zip(cross.query.parameters(), cross.key_value.parameters(), strict=True)]
    outputs = [own.projection, *([] if cross is None else [cross.projection]), block.mlp.up, block.mlp.down]
    norms = [n for n in (block.attention_norm, block.cross_norm, block.mlp_norm) if n is not None]
    return [*inputs, *(p for m in (*outputs, *norms) for p in m.parameters())]


@torch.no_grad()
@pytest.mark.parametrize("block", [Block, PostNormBlock])
@pytest.mark.parametrize("fused", [True, False])
def test_it_equals_torchs_transformer(block, fused, monkeypatch):
    monkeypatch.setattr("minigpt.model.attention.CHUNK", 3)  # shorter than the rows
    attentions = {"attention": CausalSelfAttention, "encoder_attention": BidirectionalAttention}
    attentions |= {"cross_attention": CrossAttention}
    ours = make(block=block, **{name: partial(a, bias=True, fused=fused) for name, a in attentions.items()})
    layer = {"d_model": D, "nhead": H, "dim_feedforward": 4 * D, "dropout": 0.0, "batch_first": True}
    layer |= {"norm_first": block is Block}
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, nn.LayerNorm(D), enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 2, nn.LayerNorm(D))
    for stack, blocks, norm in ((encoder, ours.encoder.blocks, ours.encoder.norm), (decoder, ours.blocks, ours.norm)):
        theirs = [*(p for one in stack.layers for p in torchs_parts(one, stack is decoder)), *stack.norm.parameters()]
        own = [*(p for one in blocks for p in our_parts(one)), *norm.parameters()]
        for parameter, value in zip(theirs, own, strict=True):
            parameter.copy_(value)
    source, target = make_tokens()
    embed = ours.embedding
    padding, causal = source == PADDING, torch.ones(T, T).triu(1).bool()
    memory = encoder(embed(source), src_key_padding_mask=padding)
    hidden = decoder(embed(target), memory, tgt_mask=causal, memory_key_padding_mask=padding)
    torch.testing.assert_close(ours((source, target)), ours.head(hidden), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", [Positions, LearnedPositions, RotaryPositions])
def test_the_decoder_sees_its_past_and_the_whole_source_but_no_padding(positions):
    model = make(positions)
    source, target = make_tokens()
    seen = {}
    for stack, name in ((model.encoder, "source"), (model, "target")):  # what each stack makes of its embeddings
        add = stack.positions.add
        stack.positions.add = lambda x, start, add=add, name=name: seen.setdefault(name, add(x, start)).requires_grad_()
    logits = model((source, target))
    for position in (0, 4, T - 1):
        gradients = torch.autograd.grad(
            logits[:, position].square().sum(), (seen["source"], seen["target"]), retain_graph=True
        )
        read, written = (g.abs().sum(dim=2) for g in gradients)
        assert written[:, position + 1 :].eq(0).all(), "the future"
        assert written[:, : position + 1].gt(0).all(), "the past"
        assert read[source != PADDING].gt(0).all() and read[source == PADDING].eq(0).all()


def test_a_longer_padding_changes_nothing():
    model = make(LearnedPositions)
    source, target = make_tokens()
    torch.testing.assert_close(model((source[1:], target[1:])), model((source[1:, :-3], target[1:])))


@pytest.mark.parametrize("positions", [Positions, LearnedPositions, RotaryPositions])
def test_decoding_with_a_cache_equals_reading_all_at_once(positions):
    model = make(positions)
    source, target = make_tokens()
    cache, read = model.make_cache(), model.encode(source)
    first = model.decode(target[:, :3], cache, **read)
    model.encoder = None  # nor is the source read, or looked at, again
    pieces = [
        first,
        *(model.decode(target[:, t : t + 1], cache, memory_padding=read["memory_padding"]) for t in (3, 4)),
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model.decode(target[:, :5], **read), atol=1e-5, rtol=1e-5)


def test_rows_of_a_cache_can_change_places():
    model = make(RotaryPositions)
    source, target = make_tokens()
    read = model.encode(source[:1].expand(2, -1))
    cache = model.make_cache()
    model.decode(target[:, :3], cache, **read)
    cache.reorder(torch.tensor([1, 1]))
    after = model.decode(target[:, 3:4], cache, **read)
    both = torch.cat((target[1:, :3].expand(2, -1), target[:, 3:4]), dim=1)
    torch.testing.assert_close(after, model.decode(both, **read)[:, -1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fused", [True, False])
def test_bidirectional_attention_sees_both_sides(fused):
    layer = BidirectionalAttention(dim=D, num_heads=H, block_size=S, fused=fused)
    x = torch.randn(1, S, D, requires_grad=True)
    context = Context(RotaryPositions(block_size=S, dim=D, head_dim=D // H))
    (gradient,) = torch.autograd.grad(layer(x[:, :5], context)[0, 2].square().sum(), x)
    assert gradient[0, :5].abs().sum(dim=1).gt(0).all() and gradient[0, 5:].eq(0).all()


def test_the_embedding_is_shared_and_the_encoder_has_no_head():
    model = make(tie_head=True)
    assert model.encoder.embedding is model.embedding and model.head.weight is model.embedding.weight
    assert [n for n, p in model.named_parameters() if V in p.shape] == ["embedding.weight"]
    blocks = sum(m.weight.numel() for n, m in model.named_modules() if "blocks." in n and isinstance(m, nn.Linear))
    assert flops_per_token(model, S) == 6 * (blocks + V * D) + 12 * 6 * D * S  # 2 attentions and 2 x 2 more
