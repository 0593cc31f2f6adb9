"""What a checkpoint may hold: plain data, and tensors that are backed by its bytes.

A checksum shows that a file is as it was written, not that its writer can be trusted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from minigpt.runs.untrusted import MAX_DEPTH, MAX_VALUES, UntrustedFileError


def iter_tensors(content: Any, source: str) -> Iterator[Tensor]:
    """Yield each tensor in nested containers.

    Raises:
        UntrustedFileError: they are nested too deeply, or have too many values.
    """
    remaining, level = MAX_VALUES, [content]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, Tensor):
                yield item
            elif isinstance(item, Mapping):
                deeper.extend(item.values())
            elif isinstance(item, list | tuple | set):
                deeper.extend(item)
            if len(deeper) > remaining:
                raise UntrustedFileError(f"{source} is damaged: it has more than {MAX_VALUES:,} values")
        if not deeper:
            return
        remaining -= len(deeper)
        level = deeper
    raise UntrustedFileError(f"{source} is damaged: it is nested more than {MAX_DEPTH} levels deep")


def check_tensors(content: Any, file_bytes: int, source: str) -> None:
    """Raise UntrustedFileError for tensors that have more elements than the file has bytes for, or none in memory."""
    storages: set[int] = set()
    remaining = file_bytes
    for tensor in iter_tensors(content, source):
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise UntrustedFileError(f"{source} is damaged: it has a tensor that is not a dense one on a CPU")
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            remaining -= storage.nbytes()
        if tensor.nbytes > storage.nbytes() or remaining < 0:
            raise UntrustedFileError(f"{source} is damaged: it has a tensor that is larger than its data")


def check_weights(weights: Any, expected: Mapping[str, Tensor]) -> None:
    """Check weights against those of a model, which may be on torch's meta device.

    Raises:
        ValueError: names or shapes differ, or a weight is not finite.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise ValueError("the weights are not a mapping of names to tensors")
    if missing := sorted(expected.keys() - weights.keys()):
        raise ValueError(f"{len(missing)} weights are missing, the first is {missing[0]}")
    if unknown := sorted(map(str, weights.keys() - expected.keys())):
        raise ValueError(f"{len(unknown)} weights belong to no part of the model, the first is {unknown[0]}")
    for name, weight in weights.items():
        shape = expected[name].shape
        if weight.shape != shape:
            raise ValueError(f"the weight {name} has the shape {list(weight.shape)}, and the model's {list(shape)}")
        if weight.is_floating_point() != expected[name].is_floating_point() or weight.is_complex():
            raise ValueError(f"the weight {name} has the type {weight.dtype}, and the model's {expected[name].dtype}")
        check_finite(name, weight)


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError for a tensor with NaN or infinite elements."""
    if not tensor.isfinite().all():
        raise ValueError(f"{name} has elements that are not finite")
