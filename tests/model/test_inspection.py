"""What happens within a model, against the same figures worked out from its parts."""

import math
from functools import partial

import pytest
import torch
from tests.training.test_module import CLASSIC, MODERN, SIZES

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.attention_variants import SoftcapAttention
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.inspection import activation_statistics, logit_lens, parameters_by_layer

TOKENS = torch.arange(20).view(2, 10)


def make(parts=CLASSIC, **options):
    torch.manual_seed(1)
    model = GPT(vocab_size=20, **{**SIZES, **parts, "init_std": 0.5, "zero_init": False, **options}).eval()
    return model


def test_each_weight_is_in_one_layer():
    layers = parameters_by_layer(make())
    assert list(layers) == ["embedding", "positions", "blocks.0", "blocks.1", "norm"], "the head shares its weight"
    model = make(tie_head=False)
    assert "head" in parameters_by_layer(model)
    found = [id(p) for parameters in parameters_by_layer(model).values() for p in parameters]
    assert sorted(found) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("attention", [CausalSelfAttention, partial(SoftcapAttention, softcap=2.0)])
def test_attention_and_activations_are_those_of_the_forward_pass(attention):
    model = make(attention=attention)
    found = activation_statistics(model, TOKENS)
    maps = model.attention_maps(TOKENS)
    for layer, weights in enumerate(maps):
        entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1).mean((0, 2))
        heads = [found.pop(f"attention_entropy/blocks.{layer}.head_{head}") for head in range(2)]
        assert heads == pytest.approx(entropy.tolist(), abs=1e-5)
    outputs = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, output: outputs.append(output))
    logits = model(TOKENS)
    for layer, output in enumerate(outputs):
        rms = output.norm().item() / output.numel() ** 0.5
        assert found.pop(f"activation_rms/blocks.{layer}") == pytest.approx(rms)
    assert found.pop("max_logit/head") == pytest.approx(logits.max().item())
    largest = [found.pop(f"max_logit/blocks.{layer}").item() for layer in range(2)]
    assert not found
    if attention is not CausalSelfAttention:
        assert all(0 < score <= 2 for score in largest), "after the cap"
    else:  # the largest score of a query has the largest weight: log p = score - log sum exp
        q, k, _ = model.blocks[0].attention.qkv(model.blocks[0].attention_norm(first_input(model)), context(model))
        scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).tril()
        visible = torch.ones(10, 10).tril().bool()
        assert largest[0] == pytest.approx(scores[..., visible].max().item(), abs=1e-5)


def first_input(model):
    return model.positions.add(model.embedding(TOKENS, None), 0)


def context(model):
    from minigpt.model.forward_context import ForwardContext

    return ForwardContext(model.positions)


def test_uniform_attention_has_the_entropy_of_its_mask():
    """With all weights 0 each query attends alike to all positions up to its own."""
    model = make(parts=MODERN)
    for block in model.blocks:
        torch.nn.init.zeros_(block.attention.qkv_proj.weight)
    expected = sum(math.log(n) for n in range(1, 11)) / 10
    assert activation_statistics(model, TOKENS)["attention_entropy/blocks.1.head_0"] == pytest.approx(expected)


def test_a_model_without_blocks_has_its_logits_alone_and_no_hook_is_left():
    model = Bigram(vocab_size=20, block_size=10)
    assert activation_statistics(model, TOKENS) == {"max_logit/head": model.table.weight[:20].max()}
    model = make()
    activation_statistics(model, TOKENS)
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert not hooks


@pytest.mark.parametrize("parts", [CLASSIC, MODERN])
def test_the_logit_lens_ends_at_the_logits_and_begins_at_the_embedding(parts):
    model = make(parts)
    found = logit_lens(model, TOKENS, last=10)
    embedded = model.positions.add(model.embedding(TOKENS), 0)
    first = model.blocks[0](embedded, context(model))
    expected = [model.head(model.norm(embedded)), model.head(model.norm(first)), model(TOKENS)]
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)
    assert torch.allclose(logit_lens(model, TOKENS, last=3), found[:, :, -3:], atol=1e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
