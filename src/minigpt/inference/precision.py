"""Which precision a device computes fast, and computing in it."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PURE = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16}


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


@contextmanager
def computing_in(precision: str, model: nn.Module) -> Iterator[None]:
    """Let a model compute in a Lightning precision, as it did while it was trained.

    Under mixed precision the matrices are cast once for as long as this lasts, and not in every call: a single token
    costs little more than reading them.
    """
    device_type = next(model.parameters()).device.type
    if precision not in MIXED:
        model.to(PURE.get(precision.removesuffix("-true"), torch.float32))
        yield
        return
    tables = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}  # one may be the head too
    weights = {p: p.data for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()}
    for weight in weights.keys() - tables:
        weight.data = weight.data.to(MIXED[precision])
    try:
        with torch.autocast(device_type, dtype=MIXED[precision], cache_enabled=False):
            yield
    finally:
        for weight, data in weights.items():
            weight.data = data


@contextmanager
def reading_rows_fast(model: nn.Module) -> Iterator[None]:
    """Let the matrices of a model on a CPU meet a single row, as in `sampling.generate`, in float16.

    Such a product takes as long as reading the matrix. Half as many bytes as float32 has, and a kernel of torch that
    multiplies a float16 matrix with a vector and no other, make it 3 to 5 times as fast (docs/notebook.md); what is
    rounded away is an eighth of what bfloat16 would. More rows go the usual way.
    """
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and m.weight.device.type == "cpu"]
    for linear in linears:
        linear.forward = functools.partial(multiply_row, linear.weight.half(), linear)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward


def multiply_row(half: Tensor, linear: nn.Linear, x: Tensor) -> Tensor:
    """`linear(x)`, where x is one row by its matrix in float16."""
    if x.numel() != x.shape[-1]:
        return nn.Linear.forward(linear, x)
    y = torch.mv(half, x.reshape(-1).half()).view(*x.shape[:-1], -1).to(linear.weight.dtype)
    return y if linear.bias is None else y + linear.bias


def cuda_has_bf16() -> bool:
    """Whether the CUDA device has bfloat16 units (compute capability 8.0 and up)."""
    return torch.cuda.get_device_capability()[0] >= 8


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself (AVX512-BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
