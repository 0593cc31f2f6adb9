"""Which precision a device computes fast."""

import torch


def resolve_precision(precision: str, device_type: str) -> str:
    """The Lightning precision that `auto` stands for on a device; any other is returned as it is.

    bf16-mixed keeps the weights in float32 and does the matrix products in bfloat16. It is 4 times as fast as float32
    on CPUs with AVX512-BF16 or AMX and 10 times on GPUs since Ampere; elsewhere it is emulated, and slower.

    Args:
        precision: `auto` or the name of a Lightning precision.
        device_type: "cpu", "cuda" or "mps".

    Raises:
        ValueError: the device cannot compute in it.
    """
    if precision.startswith(("16", "transformer-engine")) and device_type == "cpu":
        raise ValueError(f"precision={precision} needs a GPU: use auto, bf16-mixed or 32-true on a CPU")
    if precision != "auto":
        return precision
    fast = {"cuda": cuda_has_bf16, "cpu": cpu_has_bf16}.get(device_type, lambda: False)
    return "bf16-mixed" if fast() else "32-true"


def cuda_has_bf16() -> bool:
    """Whether the CUDA device has bfloat16 units (compute capability 8.0 and up)."""
    return torch.cuda.get_device_capability()[0] >= 8


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
