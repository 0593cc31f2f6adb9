"""The peak of a device: from data sheets, or measured."""

from types import SimpleNamespace

import pytest
import torch

from minigpt.training import hardware
from minigpt.training.hardware import measure_product, peak_flops

CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", None),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GeForce RTX 3090", 71e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Tesla T4", None),
    ],
)
def test_a_gpu_is_known_by_the_longest_name(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = peak_flops(CUDA, "bf16-mixed")
    assert found is None if peak is None else found[0] == peak
    assert peak_flops(CUDA, "32-true") is None and peak_flops(torch.device("mps"), "bf16-mixed") is None


def test_a_product_is_timed_by_its_fastest_run(monkeypatch):
    """2 n^3 operations: a product and a sum for each of n^3 pairs of numbers."""
    ends, sizes = iter([5, 7, 10, 10.5, 20, 24]), []
    monkeypatch.setattr(hardware, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    monkeypatch.setattr(torch, "mm", lambda a, b: sizes.append((a.shape, b.shape, a.dtype, b.dtype)))
    flops = measure_product(torch.device("cpu"), torch.bfloat16, size=10, repeats=3)
    assert flops == pytest.approx(2 * 10**3 / 0.5)
    assert sizes == [((10, 10), (10, 10), torch.bfloat16, torch.bfloat16)] * 3
