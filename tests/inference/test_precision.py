"""Inference in mixed precision and with float16 matrix-vector products."""

from functools import partial

import pytest
import torch

from minigpt.inference import precision
from minigpt.inference.precision import float16_matvec, inference_precision
from minigpt.inference.sampling import generate
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import ReLU2MLP, RMSNorm


@pytest.fixture
def model():
    """A GPT with biases and a head that is tied to the embedding."""
    components = {"attention": partial(CausalSelfAttention, bias=True), "mlp": ReLU2MLP, "norm": RMSNorm}
    sizes = {"vocab_size": 11, "block_size": 8, "num_layers": 2, "num_heads": 2, "dim": 32}
    model = GPT(**sizes, **components, positions=RotaryPositions, tie_head=True, init_std=0.3).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def test_mixed_precision_equals_that_of_training(model):
    """Bit for bit, although the matrices are cast beforehand; afterwards the weights are the same as before."""
    tokens = torch.randint(11, (3, 8))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(tokens)
        with inference_precision("bf16-mixed", model):
            assert model.blocks[0].mlp.up.weight.dtype == torch.bfloat16
            assert model.head.weight.dtype == torch.float32, "it is the embedding too, which autocast does not cast"
            assert torch.equal(model(tokens), expected)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.fixture
def fast_float16(monkeypatch):
    monkeypatch.setattr(precision, "float16_matvec_speedup", lambda rows, columns: 3.0)


def test_matrices_stay_in_float32_where_float16_is_no_faster(monkeypatch, model):
    monkeypatch.setattr(precision, "float16_matvec_speedup", lambda rows, columns: 2.0 if rows == 11 else 0.7)
    with float16_matvec(model):
        replaced = [m for m in model.modules() if "forward" in vars(m)]
    assert replaced == [model.head] and not vars(model.head).get("forward")


@pytest.mark.usefixtures("fast_float16")
def test_single_tokens_are_computed_in_float16_and_agree(model):
    """With the cache, token by token: closer to float32 than bfloat16 is."""
    tokens = torch.randint(11, (1, 8))

    def logits(cache):
        return torch.cat([model(tokens[:, i : i + 1], cache) for i in range(8)], dim=1).float()

    with torch.inference_mode():
        exact = logits(model.make_cache())
        with inference_precision("bf16-mixed", model):
            bfloat16 = logits(model.make_cache())
        with float16_matvec(model):
            float16 = logits(model.make_cache())
            at_once = model(tokens)
        assert (float16 - exact).abs().max() < 0.005 < (bfloat16 - exact).abs().max()
        assert not torch.equal(float16, exact), "float16 was used"
        torch.testing.assert_close(at_once, exact)
        torch.testing.assert_close(logits(model.make_cache()), exact, atol=0, rtol=0)


@pytest.mark.usefixtures("fast_float16")
def test_generation_in_float16_samples_the_tokens_of_float32(model):
    def sample():
        options = {"max_new_tokens": 20, "generator": torch.Generator().manual_seed(3)}
        return [token.item() for token in generate(model, torch.tensor([[1, 2]]), **options)]

    exact = sample()
    with float16_matvec(model):
        assert sample() == exact
