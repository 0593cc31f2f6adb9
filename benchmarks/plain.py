"""The reference for speed: a plain PyTorch loop like nanoGPT's, without Lightning, Hydra, logging or checkpoints."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from minigpt.config.build import build
from minigpt.data.loaders import TrainLoader
from minigpt.data.samplers import RandomSampler
from minigpt.devices import resolve_precision
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import LearnedPositions
from minigpt.model.gpt import GPT
from minigpt.model.layers import MLP, LayerNorm
from minigpt.model.objectives import NextToken
from minigpt.training.optimizers import Muon, parameter_groups

# One device, from the first step on, until the caller stops.
ENDLESS = {"micro_batches": 1, "rank": 0, "world_size": 1, "first_step": 0, "last_step": 10**6}


def nanogpt_model(vocab_size: int) -> nn.Module:
    """nanoGPT's CPU model: 0.80 M parameters, block size 64, torch's fused attention."""
    components = {"mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}
    attention = partial(CausalSelfAttention, fused=True)
    sizes = {"block_size": 64, "num_layers": 4, "num_heads": 4, "dim": 128}
    return GPT(vocab_size=vocab_size, attention=attention, tie_head=True, **sizes, **components)


def steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: TrainLoader,
    *,
    bf16: bool = False,
    compile: bool = False,
    schedule: Callable[[int], float] | None = None,
) -> Iterator[float]:
    """Train, yielding the seconds of each step; on a GPU, only those until the work is queued.

    Args:
        schedule: maps the step to a factor of the learning rates.
    """
    device = next(model.parameters()).device
    loss_of = torch.compile(NextToken().loss) if compile else NextToken().loss
    peaks = [group["lr"] for group in optimizer.param_groups]
    batches = iter(loader)
    for step in itertools.count():
        start = time.perf_counter()
        if schedule is not None:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(step)
        tokens, targets = (tensor.to(device, non_blocking=True) for tensor in next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            loss, _ = loss_of(model, tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield time.perf_counter() - start


def nanogpt_steps(tokens: np.ndarray, vocab_size: int, *, bf16: bool = False) -> Iterator[float]:
    """nanoGPT's CPU configuration: batch size 12, AdamW 1e-3, gradient norm clipped to 1; float32, or bfloat16."""
    torch.manual_seed(1)
    model = nanogpt_model(vocab_size)
    groups = parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=False)
    sampler = RandomSampler(num_tokens=len(tokens), block_size=64, seed=1)
    return steps(model, optimizer, TrainLoader(tokens, sampler, batch_size=12, **ENDLESS), bf16=bf16)


def plain_run(
    config: dict[str, Any], device: torch.device, tokens: np.ndarray, vocab_size: int
) -> tuple[nn.Module, Iterator[float]]:
    """The model of a configuration and the plain loop that trains it, with the same batches, precision and schedule."""
    torch.manual_seed(config["seed"])
    model = build(config["model"])(vocab_size=vocab_size).to(device)
    optimizer = build(config["optimizer"])(parameter_groups(model))
    bf16 = resolve_precision(config["precision"], device.type) == "bf16-mixed"
    if isinstance(optimizer, Muon):
        optimizer.low_precision = bf16
        if config["compile"] and device.type == "cuda":
            optimizer.compile()
    block_size, batch_size, seed = (config["data"][name] for name in ("block_size", "batch_size", "seed"))
    sampler = build(config["data"]["sampler"])(num_tokens=len(tokens), block_size=block_size, seed=seed)
    loader = TrainLoader(tokens, sampler, batch_size=batch_size, pin=device.type == "cuda", **ENDLESS)
    schedule = partial(build(config["scheduler"]), total_steps=config["trainer"]["max_steps"])
    return model, steps(model, optimizer, loader, bf16=bf16, compile=config["compile"], schedule=schedule)
