"""What `auto` means on this machine, and what is refused."""

import pytest
import torch

from minigpt.inference import precision
from minigpt.inference.precision import resolve_precision


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_on_cuda():
    expected = "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "32-true"
    assert resolve_precision("auto", "cuda") == expected
