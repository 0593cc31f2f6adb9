"""Scores, against numbers worked out by hand."""

import math

import pytest
import torch

from minigpt.inference.scoring import Score, bits_per_character, evaluate, to_device

SUMS = [(6.0, 1, 4), (1.0, 1, 1), (0.0, 0, 0)]  # loss [nats], correct predictions and targets of three batches


class Objective:
    """Returns known sums, and looks at how it is called."""

    def __init__(self, sums=SUMS):
        self.sums = iter(sums)

    def score(self, model, inputs, targets):
        assert torch.is_inference_mode_enabled() and not model.training
        assert next(model.parameters()).dtype == torch.float64
        return tuple(torch.tensor(value) for value in next(self.sums))


def test_a_score_is_the_mean_over_all_targets_and_not_over_batches():
    model = torch.nn.Linear(2, 2).train()
    batches = [(torch.zeros(1, 2), torch.zeros(1, 2))] * 3
    assert evaluate(model, Objective(), batches, "64-true") == Score(loss=7 / 5, accuracy=2 / 5, tokens=5)
    with pytest.raises(ValueError, match="no token in it to score"):
        evaluate(model, Objective(SUMS[2:]), batches[:1], "64-true")


def test_bits_per_character():
    assert bits_per_character(math.log(2), 1.0) == 1
    assert bits_per_character(3 * math.log(2), 0.25) == 0.75, "a token is four characters"


def test_a_pair_moves_together():
    source, target = to_device((torch.zeros(1), torch.zeros(2)), torch.device("meta"))
    assert source.is_meta and target.is_meta and to_device(torch.zeros(1), torch.device("meta")).is_meta
    assert (source.shape, target.shape) == ((1,), (2,))
