"""What is minimised, and what is reported."""

import torch
import torch.nn.functional as F

from minigpt.model.objectives import NextToken

LOGITS = torch.tensor([[[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]]])
TARGETS = torch.tensor([[0, 1, 1, -100]])


def model(tokens):
    return LOGITS


def test_label_smoothing_changes_what_is_minimised_and_not_what_is_reported():
    minimised, reported = NextToken(label_smoothing=0.1).loss(model, TARGETS, TARGETS)
    log_p = LOGITS[0, :3].log_softmax(-1)
    plain = -(log_p[0, 0] + log_p[1, 1] + log_p[2, 1]) / 3
    torch.testing.assert_close(reported, plain)
    torch.testing.assert_close(minimised, 0.9 * plain - 0.1 * log_p.mean())  # each target's tenth over all three tokens


def test_score_counts_each_counted_target_once():
    loss, correct, count = NextToken().score(model, TARGETS, TARGETS)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS[0, :3], TARGETS[0, :3], reduction="sum"))
    assert (correct, count) == (2, 3)
