"""Score a model on a split of a text. Shapes: N sequences, T time, V vocabulary."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.data.loaders import IGNORE_INDEX, Batch, Inputs
from minigpt.inference.precision import inference_precision
from minigpt.model.objectives import Objective

NUM_BINS = 15  # of the calibration; the number that arXiv 1706.04599 has throughout


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


class Sums:
    """Sums over groups of predicted tokens, in float64 on the CPU.

    Attributes:
        table: the sums of losses [nats], correct predictions, probabilities of the predictions, and ones [4, groups].
    """

    def __init__(self, groups: int = 0) -> None:
        self.table = torch.zeros(4, groups, dtype=torch.float64)

    def add(self, groups: Tensor, scores: Tensor) -> None:
        """Add tokens: the group of each [tokens], and the three values of `token_scores` [3, tokens]."""
        needed = int(groups.max()) + 1 if len(groups) else 0
        self.table = F.pad(self.table, (0, max(0, needed - self.table.shape[1])))
        ones = torch.ones(1, scores.shape[1])
        self.table.index_add_(1, groups, torch.cat((scores, ones)).double())

    @property
    def loss(self) -> Tensor:
        """The mean loss of each group [nats per token]; NaN of a group without tokens."""
        return self.table[0] / self.count

    @property
    def accuracy(self) -> Tensor:
        """The fraction of correct predictions of each group; NaN of a group without tokens."""
        return self.table[1] / self.count

    @property
    def confidence(self) -> Tensor:
        """The mean probability of the predictions, the likeliest tokens; NaN of a group without tokens."""
        return self.table[2] / self.count

    @property
    def count(self) -> Tensor:
        """The number of tokens of each group."""
        return self.table[3]


@dataclass(frozen=True)
class DetailedScore:
    """The sums of one pass over a split, grouped in several ways.

    Attributes:
        by_position: by the position in the sequence, from 0 on [T].
        by_token: by the id of the target [V].
        by_confidence: by the probability of the prediction, in bins of equal width [num_bins].
        by_sequence: by the sequence, in the order of the batches [number of sequences].
    """

    by_position: Sums
    by_token: Sums
    by_confidence: Sums
    by_sequence: Sums

    @classmethod
    def empty(cls, vocab_size: int, num_bins: int = NUM_BINS) -> "DetailedScore":
        """Return the sums of no tokens."""
        return cls(Sums(), Sums(vocab_size), Sums(num_bins), Sums())

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Add a batch of logits [N, T, V] and targets [N, T]."""
        counted = (targets != IGNORE_INDEX).cpu()
        sequences, positions = counted.nonzero(as_tuple=True)
        scores = token_scores(logits, targets)[:, counted]
        num_bins = self.by_confidence.table.shape[1]
        self.by_position.add(positions, scores)
        self.by_token.add(targets.cpu()[counted], scores)
        bins = (scores[2].nan_to_num() * num_bins).long().clamp(max=num_bins - 1)
        self.by_confidence.add(bins, scores)
        self.by_sequence.add(sequences + self.by_sequence.table.shape[1], scores)

    def total(self) -> Score:
        """Return the score of all tokens, that of `evaluate`.

        Raises:
            ValueError: there are none.
        """
        loss, correct, _, count = self.by_token.table.sum(dim=1).tolist()
        check_count(count)
        return Score(loss / count, correct / count, int(count))

    def calibration_error(self) -> float:
        """Return the expected calibration error: the mean distance of confidence and accuracy (arXiv 1706.04599)."""
        _, correct, confidence, count = self.by_confidence.table
        return ((correct - confidence).abs().sum() / count.sum()).item()

    def standard_error(self) -> float:
        """Return the standard error of the loss, from sequences of equal length that were drawn independently."""
        loss = self.by_sequence.loss
        return (loss.std() / len(loss) ** 0.5).item()


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
    check_count(count)
    return Score(loss / count, correct / count, int(count))


@torch.inference_mode()
def detailed_scores(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Batch],
    precision: str,
    *,
    vocab_size: int,
    num_bins: int = NUM_BINS,
) -> DetailedScore:
    """Return sums by position, target, confidence and sequence, from one pass over all batches.

    Args:
        model, objective, batches, precision: see `evaluate`; sequences may differ in length between batches.
        vocab_size: V, more than any target.
        num_bins: bins of `by_confidence`.

    Raises:
        ValueError: the batches have no target that counts.
    """
    device = next(model.parameters()).device
    score = DetailedScore.empty(vocab_size, num_bins)
    model.eval()
    with inference_precision(precision, model):
        for inputs, targets in batches:
            score.add(*objective.predictions(model, to_device(inputs, device), targets.to(device)))
    check_count(score.by_token.count.sum().item())
    return score


def token_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """Return loss [nats], correctness and probability of the likeliest token, [3, N, T] on the CPU.

    Args:
        logits: of the model [N, T, V].
        targets: token ids [N, T]; the values where they are -100 mean nothing.
    """
    log_p = logits.float().log_softmax(dim=-1)
    best, prediction = log_p.max(dim=-1)
    loss = -log_p.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    return torch.stack((loss, (prediction == targets).float(), best.exp())).cpu()


def check_count(count: float) -> None:
    """Raise ValueError if no token was scored."""
    if not count:
        raise ValueError("the text is too short: there is no token in it to score")
