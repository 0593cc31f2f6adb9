"""Build a model only when the machine can hold it."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def build_within_memory(constructor: Callable[..., nn.Module], *, vocab_size: int, copies: int = 1) -> nn.Module:
    """The model, once its size is known: it is first built without memory.

    Args:
        copies: how often the weights will be held; 2 with their gradients.

    Raises:
        ValueError: it is larger than this machine's memory.
    """
    with torch.device("meta"):
        shadow = constructor(vocab_size=vocab_size)
    weights, buffers = (sum(t.numel() * t.element_size() for t in ts) for ts in (shadow.parameters(), shadow.buffers()))
    needed, present = copies * weights + buffers, memory_bytes()
    if needed > present:
        raise ValueError(
            f"the model needs at least {needed / 1e9:,.0f} GB and this machine has {present / 1e9:,.0f}: "
            f"lower model.dim, model.num_layers, model.block_size or model.rows"
        )
    return constructor(vocab_size=vocab_size)


def memory_bytes() -> int:
    """The memory of this machine, or of the container that this process is held in."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return physical
