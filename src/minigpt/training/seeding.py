"""Seeding of dropout by (seed, step, micro-step, rank), so that a resumed run repeats it."""

import numpy as np
import torch

from minigpt.data.samplers import splitmix64


def seed_generator(device: torch.device, key: int, seed: int) -> None:
    """Seed the generator of one device: `torch.manual_seed` seeds every backend, which costs time in each step."""
    value = int(splitmix64(seed, np.array([key], dtype=np.uint64), 1)[0])
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
    else:
        torch.default_generator.manual_seed(value)
