"""What is minimised, and what is reported."""

import pytest
import torch
import torch.nn.functional as F

from minigpt.model.objectives import MaskedTokens, MultiToken, NextToken, numbers_of_rows

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


class Reader(torch.nn.Embedding):
    """Logits that depend on each token alone; ten characters and [MASK]."""

    vocab_size = 11

    def __init__(self):
        super().__init__(11, 11)


def drawn(tokens):
    return torch.rand(2, *tokens.shape)


@pytest.mark.parametrize("numbers", [drawn, numbers_of_rows])
def test_hidden_tokens_have_berts_shares(numbers):
    tokens = torch.randint(10, (256, 64))
    read, targets = MaskedTokens().hide(tokens, tokens, numbers(tokens), Reader())
    chosen = targets != -100
    assert torch.equal(targets[chosen], tokens[chosen]) and torch.equal(read[~chosen], tokens[~chosen])
    for share, expected in (
        (chosen, 0.15),
        (read[chosen] == 10, 0.8),
        (read[chosen] == tokens[chosen], 0.1 + 0.1 / 10),  # kept, or drawn again by chance
        (read[chosen] == (tokens[chosen] + 1) % 10, 0.1 / 10),
    ):
        deviation = (expected * (1 - expected) / share.numel()) ** 0.5
        assert share.float().mean().item() == pytest.approx(expected, abs=4 * deviation)
    assert chosen.float().mean(0).std() < 0.04 and chosen.float().mean(1).std() < 0.07, "no place or row is special"


def test_masked_loss_is_the_mean_over_chosen_tokens():
    model, tokens = Reader(), torch.randint(10, (4, 16))
    torch.manual_seed(5)
    minimised, reported = MaskedTokens(mask_fraction=0.5).loss(model, tokens, tokens)
    torch.manual_seed(5)
    read, targets = MaskedTokens(mask_fraction=0.5).hide(tokens, tokens, drawn(tokens), model)
    chosen = targets != -100
    wanted = F.cross_entropy(model(read)[chosen], tokens[chosen])
    torch.testing.assert_close(minimised, wanted)
    torch.testing.assert_close(reported, wanted)
    assert not torch.equal(MaskedTokens(mask_fraction=0.5).loss(model, tokens, tokens)[0], minimised), "drawn anew"


def test_masked_loss_of_nothing_is_nothing():
    model, tokens = Reader(), torch.zeros(1, 4, dtype=torch.long)
    assert MaskedTokens(mask_fraction=1e-9).loss(model, tokens, tokens)[0] == 0


def test_masked_score_is_the_same_in_every_batch():
    model, tokens = Reader(), torch.randint(10, (8, 32))
    targets = tokens.clone()
    targets[-1, 5:] = -100  # beyond the end of the text
    with torch.no_grad():
        scores = [MaskedTokens().score(model, tokens[rows], targets[rows]) for rows in torch.arange(8).split(3)]
        whole = MaskedTokens().score(model, tokens, targets)
    for part, total in zip(zip(*scores, strict=True), whole, strict=True):
        torch.testing.assert_close(sum(part), total)
    assert whole[2] == MaskedTokens().hide(tokens, targets, numbers_of_rows(tokens), model)[1].ne(-100).sum()
    assert MaskedTokens(mask_fraction=1.0).score(model, tokens, targets)[2] == 7 * 32 + 5


@pytest.mark.parametrize("objective", [NextToken, MaskedTokens])
def test_parts_add_to_what_is_minimised_and_not_to_what_is_reported(objective):
    model = torch.nn.Sequential(Fixed(LOGITS), torch.nn.Identity())
    model.vocab_size = 3
    model[0].auxiliary_loss, model[1].auxiliary_loss = torch.tensor(0.25), torch.tensor(0.5)
    minimised, reported = objective().loss(model, TARGETS, TARGETS)
    assert (minimised - reported).item() == pytest.approx(0.75, abs=1e-6)


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
