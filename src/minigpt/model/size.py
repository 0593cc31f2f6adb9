"""The size of a model: parameters, floating-point operations, memory."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.moe import MixtureOfExperts


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters, position embeddings included; tied weights count once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_active_parameters(model: nn.Module) -> int:
    """Count the parameters that one token uses: all but those of the experts that it does not go through."""
    return count_parameters(model) - count_inactive_parameters(model)


def count_inactive_parameters(model: nn.Module) -> int:
    """Count the parameters of the experts that one token does not go through."""
    mixtures = (m for m in model.modules() if isinstance(m, MixtureOfExperts))
    return sum((len(m.experts) - m.top_k) * count_parameters(m.experts[0]) for m in mixtures)


def flops_per_token(model: nn.Module, block_size: int) -> int:
    """Return the floating-point operations of one token's forward and backward pass (arXiv 2204.02311, appendix B).

    6 per active weight of a matrix product (2 forward, 4 backward), and 12 * H * C * T per attention layer with H heads
    of width C and T = `block_size`. By convention masked scores count too. A head that predicts several tokens counts
    once.
    """
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    weights -= count_inactive_parameters(model)
    recurrent = (m for m in model.modules() if isinstance(m, nn.RNNBase))
    weights += sum(w.numel() for m in recurrent for w in m.parameters() if w.ndim == 2)
    attention = sum(m.num_heads * m.head_dim for m in model.modules() if isinstance(m, CausalSelfAttention))
    return 6 * weights + 12 * attention * block_size


def build_within_memory(constructor: Callable[..., nn.Module], *, vocab_size: int, copies: int = 1) -> nn.Module:
    """Build a model, unless it does not fit in memory. A first build on torch's meta device tells its size.

    Args:
        constructor: called with `vocab_size`.
        vocab_size: number of token ids.
        copies: how often the weights will be held; 2 with their gradients.

    Raises:
        ValueError: the model is larger than the memory of this machine.
    """
    with torch.device("meta"):
        shadow = constructor(vocab_size=vocab_size)
    weights, buffers = (sum(t.numel() * t.element_size() for t in ts) for ts in (shadow.parameters(), shadow.buffers()))
    needed, present = copies * weights + buffers, memory_bytes()
    if needed > present:
        raise ValueError(
            f"the model needs at least {needed / 1e9:,.0f} GB and this machine has {present / 1e9:,.0f}: "
            f"lower model.dim, model.num_layers, model.block_size or model.table_size"
        )
    return constructor(vocab_size=vocab_size)


def memory_bytes() -> int:
    """Return the memory of this machine, or of the container that this process runs in [bytes]."""
    if sys.platform == "win32":  # without `os.sysconf`; there an allocation that does not fit fails by itself
        return sys.maxsize
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text("utf-8")))
    except (OSError, ValueError):
        return physical
