"""The size of a model: parameters, floating-point operations, memory."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.attention_cpu import CHUNK
from minigpt.model.embedding_variants import SuffixMatchEmbedding
from minigpt.model.moe import MixtureOfExperts
from minigpt.model.ngram import PROBES, Ngram

TOKEN_BYTES = 32  # of a generated token: its id on the device, in a stack and in a list

SMALLER = "lower model.dim, model.num_layers, model.block_size or model.table_size"


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


def activation_numbers(model: nn.Module, block_size: int) -> int:
    """Estimate how many numbers a training step on a CPU keeps for each token, the logits aside.

    Inputs and outputs of all matrix products, and of each attention the scores and the weights of `block_size` keys.
    Norms and activation functions keep the same tensors or smaller ones. tests/model/test_size.py has it within a
    factor of two of what autograd keeps.
    """
    linears = sum(m.in_features + m.out_features for m in model.modules() if isinstance(m, nn.Linear))
    mixtures = (m for m in model.modules() if isinstance(m, MixtureOfExperts))
    linears -= sum((len(m.experts) - m.top_k) * activation_numbers(m.experts[0], block_size) for m in mixtures)
    cells = (m for m in model.modules() if isinstance(m, nn.RNNBase))
    recurrent = sum(w.shape[0] for m in cells for w in m.parameters() if w.ndim == 2)
    attentions = (m for m in model.modules() if isinstance(m, CausalSelfAttention))
    scores = sum(
        m.num_heads * (min(block_size, CHUNK) + block_size if m.causal else 2 * block_size) for m in attentions
    )
    matches = sum(3 * block_size for m in model.modules() if isinstance(m, SuffixMatchEmbedding))
    probes = sum(6 * PROBES * m.order for m in model.modules() if isinstance(m, Ngram))
    return linears + recurrent + scores + matches + probes


def training_bytes(model: nn.Module, *, tokens: int, block_size: int, vocab_size: int, number_bytes: int = 4) -> int:
    """Estimate the memory of a training step on `tokens` tokens in sequences of `block_size` [bytes].

    Four numbers for each weight (with its gradient and two of optimizer state), buffers, and for each token the
    activations, the logits, their probabilities and their gradients. The backward pass takes half as much again.
    """
    weights, buffers = tensor_bytes(model)
    numbers = activation_numbers(model, block_size) + 3 * vocab_size
    return 4 * weights + buffers + 3 * number_bytes * numbers * tokens // 2


def inference_bytes(model: nn.Module, *, tokens: int, block_size: int, vocab_size: int) -> int:
    """Estimate the memory of a forward pass without gradients [bytes]: the largest layer's tensors, and the logits."""
    widest = max((m.in_features + m.out_features for m in model.modules() if isinstance(m, nn.Linear)), default=0)
    heads = max((m.num_heads for m in model.modules() if isinstance(m, CausalSelfAttention)), default=0)
    others = (SuffixMatchEmbedding, Ngram)
    rest = sum(activation_numbers(m, block_size) for m in model.modules() if isinstance(m, others))
    return 4 * tokens * (2 * widest + 2 * heads * min(block_size, CHUNK) + rest + 3 * vocab_size)


def generation_bytes(model: nn.Module, *, sequences: int, max_new_tokens: int, block_size: int, vocab_size: int) -> int:
    """Estimate the memory of generating sequences together [bytes]: caches, a context read at once, the tokens."""
    attentions = (m for m in model.modules() if isinstance(m, CausalSelfAttention))
    cached = sum(2 * m.num_kv_heads * m.head_dim * block_size for m in attentions)
    context = inference_bytes(model, tokens=block_size, block_size=block_size, vocab_size=vocab_size)
    return sequences * (4 * cached + context + TOKEN_BYTES * max_new_tokens)


def check_memory(needed: int, what: str, options: str) -> None:
    """Raise ValueError if `what` needs more memory than is available; `options` are those to lower."""
    present = memory_bytes()
    if needed > present:
        raise ValueError(
            f"{what} needs about {in_gb(needed)} GB of memory and {in_gb(present)} GB are available: lower {options}"
        )


def build_within_memory(constructor: Callable[..., nn.Module], *, vocab_size: int, copies: int = 1) -> nn.Module:
    """Build a model, unless it does not fit in memory. A first build on torch's meta device tells its size.

    Args:
        constructor: called with `vocab_size`.
        vocab_size: number of token ids.
        copies: how often the weights will be held; 4 with their gradients and the state of an optimizer.

    Raises:
        ValueError: the model is larger than the memory that is available.
    """
    check_model_memory(build_on_meta(constructor, vocab_size=vocab_size), copies)
    return constructor(vocab_size=vocab_size)


def build_on_meta(
    constructor: Callable[..., nn.Module], *, vocab_size: int, max_elements: int = 1 << 62, max_tensors: int = 100_000
) -> nn.Module:
    """Build a model without memory for its tensors, and end early when it has far more than it may have.

    Args:
        constructor: called with `vocab_size`.
        vocab_size: number of token ids.
        max_elements: elements of all parameters together. Four times as many may be made, since a constructor may
            replace parameters, as for tied ones.
        max_tensors: number of parameters, likewise.

    Raises:
        ValueError: the model has more parameters.
    """
    elements = tensors = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal elements, tensors
        elements, tensors = elements + (0 if parameter is None else parameter.numel()), tensors + 1
        if elements > 4 * max_elements or tensors > 4 * max_tensors:
            raise ValueError(f"the model has more than {max_elements:,} weights in {max_tensors:,} tensors: {SMALLER}")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            return constructor(vocab_size=vocab_size)
    except (RuntimeError, OverflowError) as error:  # what torch makes of more than 2^63 bytes
        if "overflow" not in str(error).lower():
            raise
        raise ValueError(f"the model has tensors of more than 2^63 bytes: {SMALLER}") from error
    finally:
        hook.remove()


def check_model_memory(model: nn.Module, copies: int = 1) -> None:
    """Raise ValueError for a model that is larger than the memory of this machine, with `copies` of its weights."""
    weights, buffers = tensor_bytes(model)
    needed, present = copies * weights + buffers, memory_bytes()
    if needed > present:
        raise ValueError(
            f"the model needs at least {in_gb(needed)} GB and this machine has {in_gb(present)} available: {SMALLER}"
        )


def tensor_bytes(model: nn.Module) -> tuple[int, int]:
    """Return the sizes of a model's weights and of its buffers [bytes]."""
    weights, buffers = (sum(t.numel() * t.element_size() for t in ts) for ts in (model.parameters(), model.buffers()))
    return weights, buffers


def in_gb(size: int) -> str:
    """Format a number of bytes in GB."""
    return f"{size / 1e9:,.1f}".removesuffix(".0")


def memory_bytes() -> int:
    """Return the memory that this process can still take on this machine, or in its container [bytes]."""
    if sys.platform == "win32":  # without `os.sysconf`; there an allocation that does not fit fails by itself
        return sys.maxsize
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux alone has them
        limits.append(1024 * int(Path("/proc/meminfo").read_text("utf-8").split("MemAvailable:")[1].split()[0]))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups, version 2 and 1
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", name).read_text("utf-8")))
    return min(limits)
