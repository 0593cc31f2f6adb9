"""The device to compute on, and the precision that it computes fast."""

from collections.abc import Mapping
from typing import Any

import torch

from minigpt.machine import WORTHWHILE, bfloat16_speedup

# torch's and others' names of a precision, and Lightning's.
PRECISION_ALIASES = {
    **dict.fromkeys(("16", "fp16", "float16"), "16-mixed"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16-mixed"),
    **dict.fromkeys(("32", "fp32", "float32"), "32-true"),
    **dict.fromkeys(("64", "fp64", "float64"), "64-true"),
}


def find_device(name: str) -> torch.device:
    """Return the torch device for auto, gpu, cpu, cuda or mps.

    Raises:
        ValueError: this machine does not have it.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name in ("auto", "gpu"):
        kinds = ("cuda", "mps", "cpu") if name == "auto" else ("cuda", "mps")
        name = next((kind for kind in kinds if available[kind]), name)
    if not available.get(name):
        present = ", ".join(kind for kind, there in available.items() if there)
        raise ValueError(f"device {name} is not available on this machine, which has: {present}")
    return torch.device(name)


def weight_copies(trainer: Mapping[str, Any]) -> int:
    """Return how often the weights will be in the machine's own memory when a Trainer of these options trains them.

    On a CPU with their gradients and two numbers of optimizer state; a GPU has memory of its own for those.
    """
    return 4 if find_device(str(trainer.get("accelerator", "auto"))).type == "cpu" else 1


def resolve_precision(precision: str, device_type: str) -> str:
    """Return the Lightning precision that `auto` or an alias such as `bf16` stands for, and any other as it is.

    bf16-mixed keeps the weights in float32 and computes matrix products in bfloat16. It is 4 times as fast as float32
    on CPUs with AVX512-BF16 or AMX and 10 times on GPUs since Ampere; elsewhere it is emulated, and slower.

    Args:
        precision: `auto`, an alias, or the name of a Lightning precision.
        device_type: "cpu", "cuda" or "mps".

    Raises:
        ValueError: the device does not support it.
    """
    precision = PRECISION_ALIASES.get(precision, precision)
    if precision.startswith(("16", "transformer-engine")) and device_type == "cpu":
        raise ValueError(f"precision={precision} needs a GPU: use auto, bf16-mixed or 32-true on a CPU")
    if precision.startswith("64") and device_type == "mps":
        raise ValueError(f"precision={precision} needs float64, which MPS lacks: use auto, or trainer=cpu")
    if precision != "auto":
        return precision
    has_bf16 = {"cuda": cuda_has_bf16, "cpu": cpu_has_bf16}.get(device_type, lambda: False)
    return "bf16-mixed" if has_bf16() else "32-true"


def cuda_has_bf16() -> bool:
    """Whether the CUDA device has bfloat16 units (compute capability 8.0 and up)."""
    return torch.cuda.get_device_capability()[0] >= 8


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies matrices faster in bfloat16 than in float32.

    It needs instructions for that (AVX512-BF16 or AMX), and torch must use them: the environment may forbid it
    (`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`), and a build of torch may not know them. So the two are measured.
    """
    capabilities = torch.cpu.get_capabilities()
    has_instructions = capabilities.get("avx512_bf16", False) or capabilities.get("amx_tile", False)
    return bool(has_instructions) and bfloat16_speedup() > WORTHWHILE


def score_precision(trained: str, device_type: str) -> str:
    """Return the precision to score a model in: that of its training, but float32 where bfloat16 is emulated."""
    emulated = trained == "bf16-mixed" and resolve_precision("auto", device_type) == "32-true"
    return "32-true" if emulated else trained
