"""Objectives: the loss to minimise, the loss to report, and the models that they refuse."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from minigpt.model.attention import BidirectionalAttention, CausalSelfAttention, CrossAttention
from minigpt.model.attention_variants import SlidingWindowAttention
from minigpt.model.bag_of_words import BagOfWords
from minigpt.model.embeddings import Positions
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.layers import MLP, RMSNorm
from minigpt.model.multi_token import MultiTokenGPT
from minigpt.model.ngram import Ngram
from minigpt.model.objectives import MaskedTokens, MultiToken, NextToken, hash_positions
from minigpt.model.rnn import RNN

LOGITS = torch.tensor([[[2.0, 0.0, -1.0], [0.5, 1.5, 0.0], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]]])
TARGETS = torch.tensor([[0, 1, 1, -100]])


class Fixed(torch.nn.Module):
    """Returns the same logits for all inputs."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, tokens, **options):
        return self.logits


model = Fixed(LOGITS)


def test_label_smoothing_changes_the_minimised_loss_and_not_the_reported_one():
    minimised, reported = NextToken(label_smoothing=0.1).loss(model, TARGETS, TARGETS)
    log_p = LOGITS[0, :3].log_softmax(-1)
    plain = -(log_p[0, 0] + log_p[1, 1] + log_p[2, 1]) / 3
    torch.testing.assert_close(reported, plain)
    torch.testing.assert_close(minimised, 0.9 * plain - 0.1 * log_p.mean())  # a tenth is spread over three tokens


@pytest.mark.parametrize("objective", [NextToken, MultiToken])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.5])
def test_score_sums_over_the_counted_targets(objective, label_smoothing):
    """The validation loss is without label smoothing, and without what else is added to the loss to minimise."""
    model = Fixed(LOGITS)
    model.auxiliary_loss = torch.tensor(10.0)
    loss, correct, count = objective(label_smoothing=label_smoothing).score(model, TARGETS, TARGETS)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS[0, :3], TARGETS[0, :3], reduction="sum"))
    assert (correct, count) == (2, 3)


MASK = 10


class Reader(torch.nn.Embedding):
    """Logits that depend on each token alone, for ten characters and [MASK]."""

    vocab_size = MASK + 1

    def __init__(self):
        super().__init__(11, 11)


def random_numbers(tokens):
    return torch.rand(2, *tokens.shape)


@pytest.mark.parametrize("numbers", [random_numbers, hash_positions])
def test_tokens_are_masked_in_the_proportions_of_bert(numbers):
    tokens = torch.randint(10, (256, 64))
    inputs, targets = MaskedTokens().mask_tokens(tokens, tokens, numbers(tokens), MASK)
    chosen = targets != -100
    assert torch.equal(targets[chosen], tokens[chosen]) and torch.equal(inputs[~chosen], tokens[~chosen])
    for share, expected in (
        (chosen, 0.15),
        (inputs[chosen] == MASK, 0.8),
        (inputs[chosen] == tokens[chosen], 0.1 + 0.1 / 10),  # kept, or drawn again by chance
        (inputs[chosen] == (tokens[chosen] + 1) % 10, 0.1 / 10),
    ):
        deviation = (expected * (1 - expected) / share.numel()) ** 0.5
        assert share.float().mean().item() == pytest.approx(expected, abs=4 * deviation)
    assert chosen.float().mean(0).std() < 0.04 and chosen.float().mean(1).std() < 0.07, (
        "uniform over positions and sequences"
    )


def test_masked_loss_is_the_mean_over_chosen_tokens():
    model, tokens = Reader(), torch.randint(10, (4, 16))
    torch.manual_seed(5)
    minimised, reported = MaskedTokens(mask_fraction=0.5).loss(model, tokens, tokens)
    torch.manual_seed(5)
    inputs, targets = MaskedTokens(mask_fraction=0.5).mask_tokens(tokens, tokens, random_numbers(tokens), MASK)
    chosen = targets != -100
    expected = F.cross_entropy(model(inputs)[chosen], tokens[chosen])
    torch.testing.assert_close(minimised, expected)
    torch.testing.assert_close(reported, expected)
    assert not torch.equal(MaskedTokens(mask_fraction=0.5).loss(model, tokens, tokens)[0], minimised), "another choice"


def test_masked_loss_without_chosen_tokens_is_zero():
    model, tokens = Reader(), torch.zeros(1, 4, dtype=torch.long)
    assert MaskedTokens(mask_fraction=1e-9).loss(model, tokens, tokens)[0] == 0


def test_masked_score_is_the_same_in_every_batch():
    model, tokens = Reader(), torch.randint(10, (8, 32))
    targets = tokens.clone()
    targets[-1, 5:] = -100  # beyond the end of the text
    with torch.no_grad():
        scores = [MaskedTokens().score(model, tokens[batch], targets[batch]) for batch in torch.arange(8).split(3)]
        whole = MaskedTokens().score(model, tokens, targets)
    for terms, total in zip(zip(*scores, strict=True), whole, strict=True):
        torch.testing.assert_close(sum(terms), total)
    assert whole[2] == MaskedTokens().mask_tokens(tokens, targets, hash_positions(tokens), MASK)[1].ne(-100).sum()
    assert MaskedTokens(mask_fraction=1.0).score(model, tokens, targets)[2] == 7 * 32 + 5


@pytest.mark.parametrize("objective", [NextToken, MaskedTokens])
def test_auxiliary_losses_add_to_the_minimised_loss_and_not_to_the_reported_one(objective):
    model = torch.nn.Sequential(Fixed(LOGITS), torch.nn.Identity())
    model.vocab_size = 3
    model[0].auxiliary_loss, model[1].auxiliary_loss = torch.tensor(0.25), torch.tensor(0.5)
    minimised, reported = objective().loss(model, TARGETS, TARGETS)
    assert (minimised - reported).item() == pytest.approx(0.75, abs=1e-6)


def test_each_future_token_has_its_own_target():
    logits, targets = torch.randn(3, 2, 6, 5), torch.randint(5, (2, 6))
    model = Fixed(logits)
    model.auxiliary_loss = 0.25
    minimised, reported = MultiToken(future_token_weight=0.5).loss(model, targets, targets)
    log_p = logits.log_softmax(-1)
    losses = [
        -sum(log_p[n, b, t, targets[b, t + n]] for b in range(2) for t in range(6 - n)) / (2 * (6 - n))
        for n in range(3)
    ]
    torch.testing.assert_close(reported, losses[0])
    torch.testing.assert_close(minimised, losses[0] + 0.5 * (losses[1] + losses[2]) + 0.25)
    torch.testing.assert_close(reported, NextToken().loss(Fixed(logits[0]), targets, targets)[1])


COMPONENTS = {"attention": CausalSelfAttention, "mlp": MLP, "norm": RMSNorm, "positions": Positions}
SIZES = {"vocab_size": 11, "block_size": 8, "num_layers": 2, "num_heads": 2, "dim": 8}


def make_gpt(**options):
    return GPT(**SIZES | COMPONENTS | options)


def make_encoder_decoder(**options):
    attentions = {"encoder_attention": BidirectionalAttention, "cross_attention": CrossAttention}
    return EncoderDecoder(**SIZES | COMPONENTS | attentions | options)


def make_multi_token(**options):
    return MultiTokenGPT(**SIZES | COMPONENTS | {"num_tokens": 2} | options)


def make_bigram():
    return Bigram(vocab_size=11, block_size=8)


def make_ngram():
    return Ngram(vocab_size=11, block_size=8, order=2, table_size=16)


class OtherAttention(torch.nn.Module):
    """An attention from outside the package that attends to later positions."""

    causal = False

    def __init__(self, **options):
        super().__init__()


class OtherModel(torch.nn.Module):
    """A model from outside the package: it maps token ids to logits and states nothing about itself."""

    def __init__(self):
        super().__init__()
        self.attention = OtherAttention()
        self.table = torch.nn.Embedding(11, 11)

    def forward(self, tokens):
        return self.table(tokens)


def check(objective, make, **data):
    objective().check(make(), **{"block_size": 8, "seq2seq": False} | data)


@pytest.mark.parametrize(
    ("objective", "make", "data"),
    [
        (NextToken, make_gpt, {}),
        (NextToken, partial(make_gpt, attention=partial(SlidingWindowAttention, window=2)), {}),
        (NextToken, make_bigram, {}),
        (NextToken, make_ngram, {}),
        (NextToken, partial(BagOfWords, vocab_size=11, block_size=8, dim=4), {}),
        (NextToken, partial(RNN, vocab_size=11, block_size=8, num_layers=1, dim=4, cell="gru"), {}),
        (NextToken, OtherModel, {"block_size": 10**6}),
        (NextToken, make_encoder_decoder, {"seq2seq": True}),
        (MultiToken, make_multi_token, {}),
        (MultiToken, make_multi_token, {"block_size": 2}),
        (MaskedTokens, make_gpt, {}),
        (MaskedTokens, partial(make_gpt, attention=BidirectionalAttention), {}),
        (MaskedTokens, Reader, {}),
    ],
)
def test_an_objective_accepts(objective, make, data):
    check(objective, make, **data)


LONGER = "data.block_size=9 is longer than model.block_size=8"
PAIRS = "model=encoder_decoder data=denoising"
TOGETHER = "model=multi_token and objective=multi_token go together"
FUTURE = "model/attention=bidirectional sees the tokens to be predicted: it needs objective=masked"


@pytest.mark.parametrize(
    ("objective", "make", "data", "message"),
    [
        (NextToken, make_gpt, {"block_size": 9}, LONGER),
        (NextToken, make_bigram, {"block_size": 9}, LONGER),
        (MultiToken, make_multi_token, {"block_size": 9}, LONGER),
        (MaskedTokens, make_gpt, {"block_size": 9}, LONGER),
        (NextToken, make_encoder_decoder, {}, PAIRS),
        (MaskedTokens, make_encoder_decoder, {}, PAIRS),
        (NextToken, make_gpt, {"seq2seq": True}, PAIRS),
        (NextToken, OtherModel, {"seq2seq": True}, PAIRS),
        (NextToken, make_multi_token, {}, TOGETHER),
        (MaskedTokens, make_multi_token, {}, TOGETHER),
        (MultiToken, make_gpt, {}, TOGETHER),
        (MultiToken, OtherModel, {}, TOGETHER),
        (MultiToken, make_multi_token, {"block_size": 1}, "model.num_tokens=2 is more than data.block_size=1"),
        (NextToken, partial(make_gpt, attention=BidirectionalAttention), {}, FUTURE),
        (NextToken, partial(make_gpt, attention=OtherAttention), {}, FUTURE),
        (MultiToken, partial(make_multi_token, attention=BidirectionalAttention), {}, FUTURE),
        (NextToken, partial(make_encoder_decoder, attention=BidirectionalAttention), {"seq2seq": True}, FUTURE),
        (MaskedTokens, make_ngram, {}, "needs objective=next_token"),
        (MaskedTokens, make_encoder_decoder, {"seq2seq": True}, "needs objective=next_token"),
        (MaskedTokens, OtherModel, {}, "needs a model with the attribute vocab_size"),
    ],
)
def test_an_objective_refuses(objective, make, data, message):
    with pytest.raises(ValueError, match=message):
        check(objective, make, **data)
