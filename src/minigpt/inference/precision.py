"""Run a model in a given precision for inference."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minigpt.machine import WORTHWHILE, float16_matvec_speedup

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PURE = {"64": torch.float64, "bf16": torch.bfloat16, "16": torch.float16}


@contextmanager
def inference_precision(precision: str, model: nn.Module) -> Iterator[None]:
    """Run a model in a Lightning precision, as during its training.

    Mixed precision casts the matrices once for the whole context instead of in every call, so that generating a token
    costs little more than reading them.
    """
    device_type = next(model.parameters()).device.type
    if precision not in MIXED:
        model.to(PURE.get(precision.removesuffix("-true"), torch.float32))
        yield
        return
    tables = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}  # one may be tied to the head
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
def float16_matvec(model: nn.Module) -> Iterator[None]:
    """Run nn.Linear in float16 for single-token decoding on a CPU, as in `sampling.generate`.

    The product of a matrix and a vector takes as long as reading the matrix. float16 halves the bytes of float32, and
    torch has a kernel for a float16 matrix and a vector (and for nothing else). With AVX-512 that is 3 to 5 times as
    fast, with AVX2 it is slower (docs/notebook.md), so each shape is measured once. The rounding error is an eighth of
    bfloat16's. Several tokens at once are computed as usual.
    """
    on_cpu = [m for m in model.modules() if isinstance(m, nn.Linear) and m.weight.device.type == "cpu"]
    linears = [m for m in on_cpu if float16_matvec_speedup(*m.weight.shape) > WORTHWHILE]
    for linear in linears:
        linear.forward = functools.partial(linear_matvec, linear.weight.half(), linear)
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward


def linear_matvec(half: Tensor, linear: nn.Linear, input: Tensor) -> Tensor:
    """Return `linear(input)`, computed with the float16 copy `half` of its matrix if the input is a single vector."""
    if input.numel() != input.shape[-1]:
        return nn.Linear.forward(linear, input)
    output = torch.mv(half, input.reshape(-1).half()).view(*input.shape[:-1], -1).to(linear.weight.dtype)
    return output if linear.bias is None else output + linear.bias
