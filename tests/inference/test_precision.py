"""What `auto` means on this machine, and what is refused."""

from functools import partial

import pytest
import torch

from minigpt.inference import precision
from minigpt.inference.precision import computing_in, reading_rows_fast, resolve_precision
from minigpt.inference.sampling import generate
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.gpt import GPT
from minigpt.model.mlp import ReLU2MLP
from minigpt.model.norms import RMSNorm
from minigpt.model.positions import RotaryPositions


@pytest.mark.parametrize(("has", "wanted"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_follows_the_processor(monkeypatch, has, wanted):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has)
    assert resolve_precision("auto", "cpu") == wanted


def test_auto_on_mps_is_float32():
    assert resolve_precision("auto", "mps") == "32-true"


@pytest.mark.parametrize("name", ["32-true", "bf16-true", "bf16-mixed", "64-true"])
def test_a_named_precision_stays(name):
    assert resolve_precision(name, "cpu") == name


@pytest.mark.parametrize("name", ["16-mixed", "16-true", "transformer-engine"])
def test_float16_needs_a_gpu(name):
    with pytest.raises(ValueError, match="needs a GPU"):
        resolve_precision(name, "cpu")


@pytest.fixture
def model():
    """With a head that is the embedding too, and biases."""
    parts = {"attention": partial(CausalSelfAttention, bias=True), "mlp": ReLU2MLP, "norm": RMSNorm}
    sizes = {"vocab_size": 11, "block_size": 8, "num_layers": 2, "num_heads": 2, "dim": 32}
    model = GPT(**sizes, **parts, positions=RotaryPositions, tie_head=True, init_std=0.3).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def test_mixed_precision_is_that_of_the_training(model):
    """To the bit, with the matrices cast beforehand; they come back as they were."""
    tokens = torch.randint(11, (3, 8))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(tokens)
        with computing_in("bf16-mixed", model):
            assert model.blocks[0].mlp.up.weight.dtype == torch.bfloat16
            assert model.head.weight.dtype == torch.float32, "the embedding's numbers are no matrix product's"
            assert torch.equal(model(tokens), expected)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_single_rows_are_read_in_float16_and_agree(model):
    """With the cache, token by token: nearer to float32 than bfloat16 comes."""
    tokens = torch.randint(11, (1, 8))

    def logits(cache):
        return torch.cat([model(tokens[:, i : i + 1], cache) for i in range(8)], dim=1).float()

    with torch.inference_mode():
        exact = logits(model.make_cache())
        with computing_in("bf16-mixed", model):
            coarse = logits(model.make_cache())
        with reading_rows_fast(model):
            rows = logits(model.make_cache())
            several = model(tokens)
        assert (rows - exact).abs().max() < 0.005 < (coarse - exact).abs().max()
        assert not torch.equal(rows, exact), "float16 was used"
        torch.testing.assert_close(several, exact)
        torch.testing.assert_close(logits(model.make_cache()), exact, atol=0, rtol=0)


def test_a_generation_in_float16_draws_what_float32_draws(model):
    def text():
        how = {"max_new_tokens": 20, "generator": torch.Generator().manual_seed(3)}
        return [token.item() for token in generate(model, torch.tensor([[1, 2]]), **how)]

    exact = text()
    with reading_rows_fast(model):
        assert text() == exact


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_on_cuda():
    expected = "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "32-true"
    assert resolve_precision("auto", "cuda") == expected
