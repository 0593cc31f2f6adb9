"""Dynamic evaluation: weights that go on learning from a text while they are scored on it (arXiv 1709.07432).

Each segment is scored first and learned from afterwards, so no token is seen before it is predicted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.data.loaders import Batch
from minigpt.inference.scoring import DetailedScore, to_device
from minigpt.model.objectives import Objective, sum_scores

EPSILON = 1e-8  # gradients of weights that the training text has none for


@dataclass(frozen=True)
class DynamicUpdate:
    """The update after each segment: w <- w - lr g / rms + decay (w0 - w).

    Attributes:
        lr: the learning rate.
        decay: how far the weights return towards the trained ones after each segment.
        rms: root mean square of each weight's gradients on the training text (equation 5 of the paper), in the order
            of `trainable`; None for plain gradients (SGD). The decay is then that of equation 6, in proportion to rms.
    """

    lr: float
    decay: float
    rms: list[Tensor] | None = None


def dynamic_scores(
    model: nn.Module, objective: Objective, segments: Iterable[Batch], update: DynamicUpdate, vocab_size: int
) -> DetailedScore:
    """Score segments of a text in order, learning from each. The model has its trained weights again afterwards.

    Args:
        model: the model, which is left in evaluation mode.
        objective: the objective that it was trained for.
        segments: batches of one sequence, in the order of the text.
        update: how it learns.
        vocab_size: more than any target.
    """
    weights, score = trainable(model), DetailedScore.empty(vocab_size)
    trained = [weight.detach().clone() for weight in weights]
    decays = decay_rates(update, weights)
    try:
        for logits, targets, gradients in segment_gradients(model, objective, segments):
            score.add(logits, targets)
            with torch.no_grad():
                for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
                    step = gradient if update.rms is None else gradient / (update.rms[i] + EPSILON)
                    weight.add_(decays[i] * (trained[i] - weight) - update.lr * step)
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, trained, strict=True):
                weight.copy_(value)
    return score


def decay_rates(update: DynamicUpdate, weights: list[nn.Parameter]) -> list[Tensor]:
    """Return the decay of each weight, at most 1."""
    if update.rms is None:
        return [torch.full_like(weight, update.decay) for weight in weights]
    mean = sum(rms.sum() for rms in update.rms) / sum(rms.numel() for rms in update.rms)
    return [(update.decay * rms / mean).clamp(max=1.0) for rms in update.rms]


def gradient_rms(model: nn.Module, objective: Objective, segments: Iterable[Batch]) -> list[Tensor]:
    """Return the root mean square of the gradients of each of `trainable(model)` over segments of the training text."""
    squares, count = [torch.zeros_like(weight) for weight in trainable(model)], 0
    for _, _, gradients in segment_gradients(model, objective, segments):
        count += 1
        for square, gradient in zip(squares, gradients, strict=True):
            square += gradient**2
    return [(square / max(count, 1)).sqrt() for square in squares]


def segment_gradients(
    model: nn.Module, objective: Objective, segments: Iterable[Batch]
) -> Iterator[tuple[Tensor, Tensor, Sequence[Tensor]]]:
    """Yield logits and targets of each segment, and the gradients of its mean loss for `trainable(model)`."""
    model.eval()
    weights = trainable(model)
    device = weights[0].device
    for inputs, targets in segments:
        logits, targets = objective.predictions(model, to_device(inputs, device), targets.to(device))
        loss, _, count = sum_scores(logits, targets)
        gradients = torch.autograd.grad(loss / count.clamp(min=1), weights, materialize_grads=True)
        yield logits.detach(), targets, gradients


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights that learn."""
    return [weight for weight in model.parameters() if weight.requires_grad]
