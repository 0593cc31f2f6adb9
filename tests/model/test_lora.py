"""LoRA begins as the model that it adapts, trains nothing else, and merges into plain matrices."""

from functools import partial

import pytest
import torch
from torch import nn

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import RMSNorm, SwiGLU
from minigpt.model.lora import LoRA, LoRALinear, merge_lora, without_lora
from minigpt.training.optimizers import parameter_groups


def make_gpt(**options):
    sizes = {"vocab_size": 11, "block_size": 8, "num_layers": 2, "num_heads": 2, "dim": 16}
    components = {"attention": partial(CausalSelfAttention, bias=True), "mlp": SwiGLU, "norm": RMSNorm}
    return GPT(**sizes, **components, positions=RotaryPositions, **options)


def test_the_adapted_model_begins_as_the_model_and_ends_as_one():
    plain, adapted = make_gpt(), make_gpt(adapter=partial(LoRA, rank=3, alpha=12))
    tokens = torch.randint(11, (2, 8))
    assert without_lora(adapted.state_dict()).keys() == plain.state_dict().keys()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(adapted(tokens), plain(tokens))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    changed = adapted(tokens)
    assert (changed - plain(tokens)).abs().max() > 0.1
    assert merge_lora(adapted) and not merge_lora(adapted)
    torch.testing.assert_close(adapted(tokens), changed, atol=1e-4, rtol=0)
    assert adapted.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter.requires_grad for parameter in adapted.parameters())


def test_the_change_is_what_the_paper_says():
    linear = LoRALinear(nn.Linear(4, 5), rank=2, scale=3.0)
    nn.init.normal_(linear.lora_b)
    x = torch.randn(7, 4)
    expected = x @ (linear.weight + 3 * linear.lora_b @ linear.lora_a).T + linear.bias
    torch.testing.assert_close(linear(x), expected)
    torch.testing.assert_close(linear.merged()(x), expected)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 2.0), (6.0, 1.5)])
def test_only_the_factors_of_the_blocks_are_trained(alpha, scale):
    model = make_gpt(adapter=partial(LoRA, rank=4, alpha=alpha))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kinds = ("attention.qkv_proj", "attention.out_proj", "mlp.gate_up", "mlp.down")
    assert trained == {f"blocks.{i}.{kind}.lora_{f}" for i in range(2) for kind in kinds for f in "ab"}
    assert sum(len(group["params"]) for group in parameter_groups(model)) == len(trained)
    assert {m.scale for m in model.modules() if isinstance(m, LoRALinear)} == {scale}
