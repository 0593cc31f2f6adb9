"""The exact loss of a split. Shapes: B rows, T time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.inference.precision import computing_in
from minigpt.model.objectives import NextToken


def bits_per_character(loss: float, tokens_per_character: float) -> float:
    """Nats per token as bits per character, which compares across tokenizers."""
    return loss * tokens_per_character / math.log(2)


@dataclass(frozen=True)
class Score:
    """A model on a split: loss [nats per token], accuracy, and how many tokens were predicted."""

    loss: float
    accuracy: float
    tokens: int


Tokens = Tensor | tuple[Tensor, ...]  # what a model reads


def to_device(tokens: Tokens, device: torch.device) -> Tokens:
    """One tensor, or several, on a device."""
    return tokens.to(device) if isinstance(tokens, Tensor) else tuple(each.to(device) for each in tokens)


@torch.inference_mode()
def evaluate(model: nn.Module, objective: NextToken, batches: Iterable[tuple[Tokens, Tensor]], precision: str) -> Score:
    """The exact mean over all batches, in the precision that the model was validated in while it was trained.

    Raises:
        ValueError: the objective finds nothing to score in them.
    """
    device = next(model.parameters()).device
    loss = correct = count = 0.0
    model.eval()
    with computing_in(precision, model):
        for tokens, targets in batches:
            sums = objective.score(model, to_device(tokens, device), targets.to(device))
            loss, correct, count = (
                total + part.item() for total, part in zip((loss, correct, count), sums, strict=True)
            )
    if not count:
        raise ValueError("the text is too short: there is no token in it to score")
    return Score(loss / count, correct / count, int(count))
