"""The measure: a plain PyTorch loop that does what nanoGPT does, without Lightning, Hydra, logging or checkpoints."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from minigpt.config.build import build
from minigpt.data.blocks import RandomBlocks
from minigpt.data.streams import TrainStream
from minigpt.inference.precision import resolve_precision
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.gpt import GPT
from minigpt.model.mlp import MLP
from minigpt.model.norms import LayerNorm
from minigpt.model.objectives import NextToken
from minigpt.model.positions import LearnedPositions
from minigpt.training.optimizers import Muon, parameter_groups

FOREVER = 10**6  # steps


def nanogpt_model(vocab_size: int) -> nn.Module:
    """nanoGPT's CPU model: 0.80 M parameters, block 64, torch's fused attention."""
    parts = {"mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}
    attention = partial(CausalSelfAttention, fused=True)
    sizes = {"block_size": 64, "num_layers": 4, "num_heads": 4, "dim": 128}
    return GPT(vocab_size=vocab_size, attention=attention, tie_head=True, **sizes, **parts)


def steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    stream: TrainStream,
    *,
    bf16: bool = False,
    compile: bool = False,
    schedule: Callable[[int], float] | None = None,
) -> Iterator[float]:
    """Train; yields the seconds of each step, which on a GPU are those of handing it its work.

    `schedule` says what the learning rates are multiplied by at a step.
    """
    device = next(model.parameters()).device
    loss_of = torch.compile(NextToken().loss) if compile else NextToken().loss
    peaks = [group["lr"] for group in optimizer.param_groups]
    batches = iter(stream)
    for step in itertools.count():
        begin = time.perf_counter()
        if schedule is not None:
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(step)
        tokens, targets = (part.to(device, non_blocking=True) for part in next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
            loss, _ = loss_of(model, tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield time.perf_counter() - begin


def nanogpt_steps(tokens: object, vocab_size: int) -> Iterator[float]:
    """nanoGPT's CPU configuration: batch 12, float32, AdamW 1e-3, gradients clipped to 1."""
    torch.manual_seed(1)
    model = nanogpt_model(vocab_size)
    groups = parameter_groups(model)
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1, fused=False)
    blocks = RandomBlocks(num_tokens=len(tokens), block_size=64, seed=1)  # type: ignore[arg-type]
    how = {"batch_size": 12, "micro_batches": 1, "rank": 0, "world_size": 1, "first_step": 0, "last_step": FOREVER}
    return steps(model, optimizer, TrainStream(tokens, blocks, **how))  # type: ignore[arg-type]


def bare_run(
    config: dict[str, Any], device: torch.device, tokens: np.ndarray, vocab_size: int
) -> tuple[nn.Module, Iterator[float]]:
    """The model of a configuration and the plain loop that trains it: the same parts, rows, precision and schedule."""
    torch.manual_seed(config["seed"])
    model = build(config["model"])(vocab_size=vocab_size).to(device)
    optimizer = build(config["optimizer"])(parameter_groups(model))
    bf16 = resolve_precision(config["precision"], device.type) == "bf16-mixed"
    if isinstance(optimizer, Muon):
        optimizer.low_precision = bf16
        if config["compile"] and device.type == "cuda":
            optimizer.compile()
    block_size, batch_size, seed = (config["data"][name] for name in ("block_size", "batch_size", "seed"))
    blocks = build(config["data"]["blocks"])(num_tokens=len(tokens), block_size=block_size, seed=seed)
    stream = TrainStream(
        tokens, blocks, batch_size=batch_size, micro_batches=1, rank=0, world_size=1, first_step=0, last_step=FOREVER,
        pin=device.type == "cuda",
    )  # fmt: skip
    schedule = partial(build(config["scheduler"]), total_steps=config["trainer"]["max_steps"])
    return model, steps(model, optimizer, stream, bf16=bf16, compile=config["compile"], schedule=schedule)
