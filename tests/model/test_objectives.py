"""What is minimised, and what is reported."""

import torch
import torch.nn.functional as F

from minigpt.model.objectives import MultiToken, NextToken

LOGITS = torch.tensor([[[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]]])
TARGETS = torch.tensor([[0, 1, 1, -100]])


class Fixed(torch.nn.Module):
    """Answers the same to everything."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, tokens, **options):
        return self.logits


model = Fixed(LOGITS)


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


def test_parts_add_to_what_is_minimised_and_not_to_what_is_reported():
    model = torch.nn.Sequential(Fixed(LOGITS), torch.nn.Identity())
    model[0].auxiliary_loss, model[1].auxiliary_loss = torch.tensor(0.25), torch.tensor(0.5)
    minimised, reported = NextToken().loss(model, TARGETS, TARGETS)
    assert (minimised - reported).item() == 0.75


def test_several_tokens_are_each_held_against_their_own_target():
    logits, targets = torch.randn(3, 2, 6, 5), torch.randint(5, (2, 6))
    model = Fixed(logits)
    model.auxiliary_loss = 0.25
    minimised, reported = MultiToken(ahead_weight=0.5).loss(model, targets, targets)
    log_p = logits.log_softmax(-1)
    losses = [
        -sum(log_p[n, row, t, targets[row, t + n]] for row in range(2) for t in range(6 - n)) / (2 * (6 - n))
        for n in range(3)
    ]
    torch.testing.assert_close(reported, losses[0])
    torch.testing.assert_close(minimised, losses[0] + 0.5 * (losses[1] + losses[2]) + 0.25)
    torch.testing.assert_close(reported, NextToken().loss(Fixed(logits[0]), targets, targets)[1])
