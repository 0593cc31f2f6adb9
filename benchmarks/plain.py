"""The measure: a plain PyTorch loop that does what nanoGPT does, without Lightning, Hydra, logging or checkpoints."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from minigpt.data.blocks import RandomBlocks
from minigpt.data.datamodule import TrainStream
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.gpt import GPT
from minigpt.model.mlp import MLP
from minigpt.model.norms import LayerNorm
from minigpt.model.positions import LearnedPositions
from minigpt.training.optimizers import parameter_groups


def nanogpt_model(vocab_size: int) -> nn.Module:
    """nanoGPT's CPU model: 0.80 M parameters, block 64, torch's fused attention."""
    parts = {"mlp": MLP, "norm": LayerNorm, "positions": LearnedPositions}
    attention = partial(CausalSelfAttention, fused=True)
    sizes = {"block_size": 64, "num_layers": 4, "num_heads": 4, "dim": 128}
    return GPT(vocab_size=vocab_size, attention=attention, tie_head=True, **sizes, **parts)


def steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, stream: TrainStream, *, bf16: bool = False
) -> Iterator[float]:
    """Train; yields the seconds of each step."""
    precision = torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if bf16 else nullcontext()
    batches = iter(stream)
    while True:
        begin = time.perf_counter()
        tokens, targets = next(batches)
        with precision:
            loss = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
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
    how = {"batch_size": 12, "micro_batches": 1, "rank": 0, "world_size": 1, "first_step": 0, "last_step": 10**6}
    return steps(model, optimizer, TrainStream(tokens, blocks, **how))  # type: ignore[arg-type]
