"""Scores, against numbers worked out by hand."""

import math

import pytest
import torch

from minigpt.data.loaders import ValLoader
from minigpt.inference.scoring import Score, Sums, bits_per_character, detailed_scores, evaluate, to_device
from minigpt.model.gpt import Bigram
from minigpt.model.objectives import MaskedTokens, NextToken

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


def test_a_detailed_score_sums_by_position_token_and_confidence():
    """The loss of each token from its probability; two sequences of three tokens, the last of which is not counted."""
    model = Bigram(vocab_size=3, block_size=3)
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    model.table.weight.data = p.log() + 7.0
    inputs, targets = torch.tensor([[0, 1, 2], [1, 0, 0]]), torch.tensor([[1, 1, 0], [0, 2, -100]])
    found = detailed_scores(model, NextToken(), [(inputs, targets)], "32-true", vocab_size=3, num_bins=3)
    nats = [-math.log(x) for x in (0.3, 0.8, 0.25, 0.1, 0.2)]  # of the targets 1, 1, 0, 0, 2
    unlikely, likely = nats[0] + nats[2] + nats[4], nats[1] + nats[3]  # predicted with 0.5 and with 0.8
    for sums, loss, correct, confidence, count in (
        (found.by_position, [nats[0] + nats[3], nats[1] + nats[4], nats[2]], [0, 1, 0], [1.3, 1.3, 0.5], [2, 2, 1]),
        (found.by_token, [nats[2] + nats[3], nats[0] + nats[1], nats[4]], [0, 1, 0], [1.3, 1.3, 0.5], [2, 2, 1]),
        (found.by_confidence, [0, unlikely, likely], [0, 0, 1], [0, 1.5, 1.6], [0, 3, 2]),
    ):
        expected = torch.tensor([loss, correct, confidence, count], dtype=torch.float64)
        torch.testing.assert_close(sums.table, expected, atol=1e-6, rtol=0)
    assert found.total() == Score(pytest.approx(sum(nats) / 5, abs=1e-6), 1 / 5, 5)
    assert found.calibration_error() == pytest.approx((1.5 + 0.6) / 5)  # |0 - 1.5| and |1 - 1.6|
    assert found.by_position.loss[2] == pytest.approx(nats[2]) and found.by_token.confidence[1] == pytest.approx(0.65)
    assert found.by_token.accuracy.tolist() == [0, 0.5, 0] and found.by_confidence.loss[0].isnan()


@pytest.mark.parametrize("objective", [NextToken(), MaskedTokens()])
def test_a_detailed_score_is_that_of_all_batches(objective):
    model = Bigram(vocab_size=11, block_size=8)
    batches = ValLoader(torch.randint(10, (100,)).numpy(), block_size=8, batch_size=3)
    found = detailed_scores(model, objective, batches, "32-true", vocab_size=11)
    score, plain = found.total(), evaluate(model, objective, batches, "32-true")
    assert (score.accuracy, score.tokens) == (plain.accuracy, plain.tokens) and score.loss == pytest.approx(plain.loss)
    tables = [sums.table.sum(dim=1) for sums in (found.by_position, found.by_token, found.by_confidence)]
    torch.testing.assert_close(tables[0], tables[1])
    torch.testing.assert_close(tables[0], tables[2])
    with pytest.raises(ValueError, match="no token in it to score"):
        detailed_scores(
            model, objective, [(torch.zeros(1, 1).long(), torch.tensor([[-100]]))], "32-true", vocab_size=11
        )


def test_sums_grow_with_their_groups():
    sums = Sums(1)
    sums.add(torch.tensor([2, 0, 2]), torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 1.0], [0.5, 0.25, 0.125]]))
    assert sums.table.tolist() == [[2, 0, 4], [1, 0, 1], [0.25, 0, 0.625], [1, 0, 2]]
