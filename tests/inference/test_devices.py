"""Devices and the precision that `auto` stands for."""

import pytest
import torch

from minigpt import devices
from minigpt.devices import cpu_has_bf16, find_device, resolve_precision, score_precision


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_depends_on_the_cpu(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has_bf16)
    assert resolve_precision("auto", "cpu") == expected


def test_auto_on_mps_is_float32():
    assert resolve_precision("auto", "mps") == "32-true"


@pytest.mark.parametrize("name", ["32-true", "bf16-true", "bf16-mixed", "64-true"])
def test_other_precisions_stay_as_they_are(name):
    assert resolve_precision(name, "cpu") == name


@pytest.mark.parametrize("name", ["16-mixed", "16-true", "transformer-engine"])
def test_float16_needs_a_gpu(name):
    with pytest.raises(ValueError, match="needs a GPU"):
        resolve_precision(name, "cpu")


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_tile", "avx512_f", None])
@pytest.mark.parametrize("times", [0.03, 1.05, 4.0])
def test_bfloat16_needs_instructions_that_make_it_faster(monkeypatch, capability, times):
    """Instructions alone do not suffice: ATEN_CPU_CAPABILITY=avx2 keeps torch from using them."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", capability: True})
    monkeypatch.setattr(devices, "bfloat16_speedup", lambda: times)
    assert cpu_has_bf16() == (capability in ("avx512_bf16", "amx_tile") and times == 4.0)


@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_model_is_scored_in_its_precision_unless_that_is_emulated(monkeypatch, has_bf16):
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: has_bf16)
    assert score_precision("bf16-mixed", "cpu") == ("bf16-mixed" if has_bf16 else "32-true")
    assert score_precision("64-true", "cpu") == "64-true"


def test_torch_still_reports_the_instructions_of_the_cpu():
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] in ("x86", "x86_64"):
        assert {"avx512_bf16", "amx_tile"} <= set(capabilities)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_on_cuda():
    expected = "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "32-true"
    assert resolve_precision("auto", "cuda") == expected


def test_a_device_is_found_by_its_name():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match=r"device tpu is not available on this machine, which has: .*cpu"):
        find_device("tpu")
