"""A GPT that predicts several future tokens."""

import pytest
import torch

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, RMSNorm
from minigpt.model.multi_token import MultiTokenGPT
from minigpt.model.objectives import MultiToken, NextToken
from minigpt.model.size import count_parameters

COMPONENTS = {"attention": CausalSelfAttention, "mlp": MLP, "norm": RMSNorm, "positions": RotaryPositions}
SIZES = {"vocab_size": 11, "block_size": 8, "num_layers": 4, "num_heads": 2, "dim": 16}
TOKENS = torch.tensor([[1, 5, 3, 10, 0, 2, 2, 7]])


@pytest.fixture
def model():
    return MultiTokenGPT(num_tokens=3, **SIZES, **COMPONENTS)


def test_the_last_blocks_work_in_parallel(model):
    assert count_parameters(model) == count_parameters(GPT(**SIZES, **COMPONENTS))
    hidden = {}
    for name in ("blocks.0", "blocks.1", "future_blocks.0", "future_blocks.1"):
        model.get_submodule(name).register_forward_pre_hook(lambda m, x, name=name: hidden.update({name: x[0]}))
    logits = model(TOKENS, future_tokens=True)
    assert logits.shape == (3, 1, 8, 11) and len(hidden) == 4
    assert torch.equal(hidden["blocks.1"], hidden["future_blocks.0"]) and torch.equal(
        hidden["blocks.1"], hidden["future_blocks.1"]
    )
    torch.testing.assert_close(logits[0], model(TOKENS))


def test_no_prediction_sees_the_future(model):
    changed = TOKENS.clone()
    changed[0, 5] = 9
    before, after = model(TOKENS, future_tokens=True), model(changed, future_tokens=True)
    torch.testing.assert_close(after[:, :, :5], before[:, :, :5])
    assert (after[:, :, 5:] != before[:, :, 5:]).flatten(1).any(dim=1).all()


def test_the_next_tokens_loss_is_reported_and_all_parameters_are_trained(model):
    minimised, reported = MultiToken().loss(model, TOKENS, TOKENS)
    torch.testing.assert_close(reported, NextToken().loss(model, TOKENS, TOKENS)[1])
    minimised.backward()
    assert all(p.grad.any() for p in model.parameters())


def test_a_cache_changes_nothing(model):
    cache = model.make_cache()
    pieces = [model(TOKENS[:, a:b], cache) for a, b in ((0, 3), (3, 8))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(TOKENS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_tokens", [0, 5])
def test_each_token_has_its_own_block(num_tokens):
    with pytest.raises(ValueError, match="its own block"):
        MultiTokenGPT(num_tokens=num_tokens, **SIZES, **COMPONENTS)
