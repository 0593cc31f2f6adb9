"""Filters of logits: against numbers worked out by hand, and against transformers; samples against the distribution."""

import math

import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from minigpt.inference.logit_filters import filter_logits, keep_min_p, keep_top_k, keep_top_p, penalize_repetition
from minigpt.inference.sampling import generate, sample_token
from minigpt.model.gpt import Bigram

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[None]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (lambda x: keep_top_k(x, 2), [True, True, False, False]),
        (lambda x: keep_top_k(x, 9), [True] * 4),
        (lambda x: keep_top_p(x, 0.79), [True, True, False, False]),
        (lambda x: keep_top_p(x, 0.81), [True, True, True, False]),
        (lambda x: keep_top_p(x, 1e-37), [True, False, False, False]),
        (lambda x: keep_min_p(x, 0.29), [True, True, True, False]),  # 0.29 * 0.5 = 0.145
        (lambda x: keep_min_p(x, 0.31), [True, True, False, False]),
        (lambda x: keep_min_p(x, 0.0), [True] * 4),
        (lambda x: keep_min_p(x, 1.0), [True, False, False, False]),
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 3, 0, 1]])
def test_tokens_that_are_kept(keep, kept, order):
    expected = torch.where(torch.tensor([kept]), LOGITS, -math.inf)[:, order]
    assert torch.equal(keep(LOGITS[:, order]), expected)


def test_equal_logits_are_kept_together_by_top_k():
    assert torch.equal(keep_top_k(torch.tensor([[1.0, 1.0, 0.0]]), 1), torch.tensor([[1.0, 1.0, -math.inf]]))


def test_a_filter_sees_what_those_before_it_left():
    """At temperature 0.5: 0.25, 0.09, 0.0225, 0.0025 of 0.365. Two are left by top-k: 0.735 and 0.265."""
    kept = filter_logits(LOGITS, temperature=0.5, top_k=2, top_p=0.74, min_p=0.35)
    torch.testing.assert_close(kept.softmax(-1), torch.tensor([[0.25 / 0.34, 0.09 / 0.34, 0, 0]]))
    assert filter_logits(LOGITS, temperature=0.5, top_k=2, top_p=0.73)[0, 1] == -math.inf
    assert filter_logits(LOGITS, temperature=0.5, top_k=2, min_p=0.37)[0, 1] == -math.inf  # 0.09 / 0.25 = 0.36


def test_a_penalty_lowers_logits_of_either_sign():
    seen = torch.tensor([[True, True, False, False]])
    found = penalize_repetition(torch.tensor([[3.0, -1.0, 3.0, -1.0]]), seen, 1.5)
    assert found.tolist() == [[2.0, -1.5, 3.0, -1.0]]


@pytest.mark.parametrize("temperature", [0.3, 1.7])
@pytest.mark.parametrize(
    "filters", [{"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 8, "top_p": 0.9, "min_p": 0.2}]
)
def test_filters_are_those_of_transformers(temperature, filters):
    logits, ids = 3 * torch.randn(50, 20), torch.randint(20, (50, 7))
    expected = RepetitionPenaltyLogitsProcessor(1.4)(ids, logits)
    seen = torch.zeros(50, 20, dtype=torch.bool).scatter(1, ids, True)
    ours = penalize_repetition(logits, seen, 1.4)
    assert torch.equal(ours, expected)
    warpers = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    expected = TemperatureLogitsWarper(temperature)(ids, expected)
    for name, value in filters.items():
        expected = warpers[name](value)(ids, expected)
    torch.testing.assert_close(
        filter_logits(ours, temperature=temperature, **filters).softmax(-1), expected.softmax(-1)
    )


def test_greedy_tokens_are_the_largest_logits_exactly():
    logits = torch.randn(40, 30)
    logits[:, 7] = logits[:, 3]  # of equal logits, the first
    assert torch.equal(sample_token(logits, temperature=0, top_k=2, min_p=0.5), logits.argmax(-1))


def test_the_penalty_counts_the_prompt_and_what_was_generated():
    """Whatever comes before, the logits are 2, 1.9, 1.8 and 0; over 1.2, the first three are 1.67, 1.58 and 1.5."""
    model = Bigram(vocab_size=4, block_size=2)
    model.table.weight.data = torch.tensor([2.0, 1.9, 1.8, 0.0]).expand(4, 4).clone()
    options = {"max_new_tokens": 4, "temperature": 0, "repetition_penalty": 1.2}
    found = torch.stack(list(generate(model, torch.tensor([[3, 3], [1, 3]]), **options)), dim=1)
    assert found.tolist() == [[0, 1, 2, 0], [0, 2, 0, 0]]


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.3}, {"top_k": 4, "top_p": 0.9, "min_p": 0.2}],
)
def test_samples_have_the_distribution_that_is_worked_out(options):
    """Chi-square over all pairs of two generated tokens: the probability of each is a product, by plain arithmetic."""
    table, n = torch.randn(5, 5), 40_000
    model = Bigram(vocab_size=5, block_size=4)
    model.table.weight.data = table.clone()

    def distribution(logits):
        p = (logits.double() / options.get("temperature", 1.0)).softmax(-1).tolist()
        ranked = sorted(range(5), key=lambda i: -p[i])
        ranked = ranked[: options.get("top_k", 5)]
        total = sum(p[i] for i in ranked)
        kept = [i for at, i in enumerate(ranked) if sum(p[j] for j in ranked[:at]) < options.get("top_p", 1.0) * total]
        kept = [i for i in kept if p[i] >= options.get("min_p", 0.0) * p[ranked[0]]]
        return [p[i] / sum(p[j] for j in kept) if i in kept else 0.0 for i in range(5)]

    first = distribution(table[2])
    expected = torch.tensor([[p * q for q in distribution(table[i])] for i, p in enumerate(first)]).flatten() * n
    a, b = generate(model, torch.full((n, 1), 2), max_new_tokens=2, **options)
    counts = torch.bincount(5 * a + b, minlength=25)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum().item()
    freedom = int(possible.sum()) - 1
    # The 99.9th percentile of chi-square, by Wilson and Hilferty's approximation (1931).
    bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < bound
