"""Score a model on a split of a text. Shapes: N sequences, T time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.data.loaders import Batch, Inputs
from minigpt.inference.precision import inference_precision
from minigpt.model.objectives import Objective


def bits_per_character(loss: float, tokens_per_character: float) -> float:
    """Convert a loss [nats per token] to bits per character, which can be compared across tokenizers."""
    return loss * tokens_per_character / math.log(2)


@dataclass(frozen=True)
class Score:
    """The score of a model on a split.

    Attributes:
        loss: mean loss [nats per token].
        accuracy: fraction of tokens predicted correctly.
        tokens: number of tokens predicted.
    """

    loss: float
    accuracy: float
    tokens: int


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Move inputs [N, T], or a pair of source and target, to a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    source, target = inputs
    return source.to(device), target.to(device)


@torch.inference_mode()
def evaluate(model: nn.Module, objective: Objective, batches: Iterable[Batch], precision: str) -> Score:
    """Return the exact mean over all batches.

    Args:
        model: the model, which is left in evaluation mode.
        objective: the objective that it was trained for.
        batches: pairs of inputs and targets.
        precision: the name of a Lightning precision.

    Raises:
        ValueError: the batches have no target that counts.
    """
    device = next(model.parameters()).device
    loss = correct = count = 0.0
    model.eval()
    with inference_precision(precision, model):
        for inputs, targets in batches:
            sums = objective.score(model, to_device(inputs, device), targets.to(device))
            loss, correct, count = (
                total + batch_sum.item() for total, batch_sum in zip((loss, correct, count), sums, strict=True)
            )
    if not count:
        raise ValueError("the text is too short: there is no token in it to score")
    return Score(loss / count, correct / count, int(count))
