"""The peak floating-point throughput of a device, for model FLOPs utilization (MFU)."""

import re
import time

import torch

SIZE = 512  # of the matrices whose product is measured; large enough for the peak, and a few milliseconds
# Dense bfloat16 peaks [FLOP/s] from NVIDIA's data sheets; the longest name that is part of the device's name counts.
CUDA_BF16_PEAKS = {
    "A100": 312e12,
    "A10": 125e12,
    "L4": 121e12,
    "L40S": 362e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "GH200": 989e12,
    "B200": 2250e12,
}


def peak_flops(device: torch.device, precision: str) -> tuple[float, str] | None:
    """The peak throughput [FLOP/s] of matrix products on a device, and its source.

    A GPU's bfloat16 peak is from its data sheet. A CPU's is measured in a few hundredths of a second, since it depends
    on clock and core count. None where neither is known.
    """
    if device.type == "cpu":
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        return measure_product(device, dtype), f"measured product of two {SIZE} x {SIZE} {str(dtype)[6:]} matrices"
    if device.type == "cuda" and precision.startswith("bf16"):
        name = torch.cuda.get_device_name(device)
        matches = [known for known in CUDA_BF16_PEAKS if re.search(rf"\b{known}\b", name)]
        if matches:
            best = max(matches, key=len)
            return CUDA_BF16_PEAKS[best], f"{best} data sheet, dense bfloat16"
    return None


def measure_product(device: torch.device, dtype: torch.dtype, size: int = SIZE, repeats: int = 6) -> float:
    """Throughput [FLOP/s] of the fastest of a few square matrix products."""
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    fastest = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        torch.mm(a, b)
        fastest = min(fastest, time.perf_counter() - begin)
    return 2 * size**3 / fastest
