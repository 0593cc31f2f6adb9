"""Beam search against brute force, against numbers computed by hand, and against greedy decoding."""

import math
from itertools import product

import pytest
import torch

from minigpt.inference.beam_search import beam_search, score
from minigpt.inference.sampling import generate
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.kv_cache import KVCache
from minigpt.model.layers import MLP, RMSNorm

V, STOP = 4, 3


@pytest.fixture
def gpt():
    components = {"attention": CausalSelfAttention, "mlp": MLP, "norm": RMSNorm, "positions": RotaryPositions}
    model = GPT(vocab_size=V, block_size=12, num_layers=2, num_heads=2, dim=8, **components).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def search(model, prompts, **options):
    options = {"num_beams": 3, "length_penalty": 0.6, "max_new_tokens": 4, "stop_token": STOP} | options
    return beam_search(model, model.make_cache(), prompts, block_size=model.block_size, **options)


def log_p(model, prompt, continuation):
    """The log-probability of a continuation, computed in one pass."""
    steps = model(torch.tensor([[*prompt, *continuation]]))[0, len(prompt) - 1 : -1].log_softmax(-1)
    return steps.gather(1, torch.tensor(continuation)[:, None]).sum().item()


def cut(ids):
    """A continuation up to its first stop token."""
    return ids[: ids.index(STOP) + 1] if STOP in ids else ids


@torch.no_grad()
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 3.0])
def test_with_enough_beams_the_result_is_that_of_brute_force(gpt, length_penalty):
    prompts = torch.tensor([[0, 1], [2, 2]])
    found, scores = search(gpt, prompts, num_beams=V**3, length_penalty=length_penalty, max_new_tokens=3)
    for prompt, hypotheses, their_scores in zip(prompts.tolist(), found.tolist(), scores.tolist(), strict=True):
        every = {tuple(cut(list(ids))) for ids in product(range(V), repeat=3)}
        ranked = sorted((log_p(gpt, prompt, list(h)) / ((5 + len(h)) / 6) ** length_penalty, h) for h in every)[::-1]
        assert [tuple(cut(h)) for h in hypotheses[: len(every)]] == [h for _, h in ranked]
        assert their_scores[: len(every)] == pytest.approx([s for s, _ in ranked], abs=1e-4)
        assert set(their_scores[len(every) :]) == {-math.inf}, "no hypothesis twice"


@torch.no_grad()
def test_a_score_is_the_log_probability_over_the_penalty(gpt):
    """Also after beams have been reordered."""
    found, scores = search(gpt, torch.tensor([[0], [1], [2]]), max_new_tokens=9)
    for first, (hypotheses, their_scores) in enumerate(zip(found.tolist(), scores.tolist(), strict=True)):
        assert len({tuple(h) for h in hypotheses}) == 3 and their_scores == sorted(their_scores, reverse=True)
        for ids, value in zip(map(cut, hypotheses), their_scores, strict=True):
            assert value == pytest.approx(log_p(gpt, [first], ids) / ((5 + len(ids)) / 6) ** 0.6, abs=1e-4)


@pytest.mark.parametrize("make", [lambda gpt: gpt, lambda gpt: Bigram(vocab_size=V, block_size=4)])
def test_one_beam_is_greedy_decoding_beyond_the_context_too(gpt, make):
    model, prompts = make(gpt), torch.randint(V, (3, 15))
    found, _ = search(model, prompts, num_beams=1, max_new_tokens=30, stop_token=None)
    greedy = torch.stack(list(generate(model, prompts, max_new_tokens=30, temperature=0)), dim=1)
    assert torch.equal(found[:, 0], greedy)


def test_the_penalty_computed_by_hand():
    assert score(torch.tensor(-6.0), torch.tensor(7.0), 1.0) == -3.0  # (5 + 7) / 6 = 2
    assert score(torch.tensor(-6.0), torch.tensor(19.0), 0.5) == -3.0  # sqrt(24 / 6) = 2
    assert score(torch.tensor(-6.0), torch.tensor(7.0), 0.0) == -6.0


@pytest.mark.parametrize(("length_penalty", "best"), [(0.0, [STOP]), (2.0, [0, 0, STOP])])
def test_a_longer_hypothesis_can_win_by_the_penalty(length_penalty, best):
    """p(stop at once) = 0.4; p(0) = 0.6, then 0.7 and 0.9: 0.378 together. With penalty 2:

    ln 0.4 / (6 / 6)^2 = -0.916 and ln 0.378 / (8 / 6)^2 = -0.547.
    """
    steps = iter([[0.6, 0, 0, 0.4], [0.7, 0, 0, 0.3], [0.1, 0, 0, 0.9]])

    def model(tokens, cache):
        return torch.tensor(next(steps)).log().expand(len(tokens), 1, V)

    prompt = torch.tensor([[0]])
    options = {
        "block_size": 9,
        "num_beams": 2,
        "length_penalty": length_penalty,
        "max_new_tokens": 3,
        "stop_token": STOP,
    }
    found, scores = beam_search(model, KVCache(num_layers=0), prompt, **options)
    assert cut(found[0, 0].tolist()) == best
    assert scores[0, 0].item() == pytest.approx({0.0: -0.9163, 2.0: -0.5472}[length_penalty], abs=1e-4)


def test_search_stops_when_all_hypotheses_have_ended():
    model = Bigram(vocab_size=V, block_size=4)
    with torch.no_grad():
        model.table.weight[:, STOP] = 50.0
    found, _ = search(model, torch.tensor([[0], [1]]), num_beams=1, max_new_tokens=50)
    assert found.tolist() == [[[STOP]], [[STOP]]]


def test_a_penalty_beyond_float32_is_not_nan():
    scores = score(torch.tensor([-1.0, -math.inf]), torch.tensor([1e6, 1e6]), 10.0)
    assert scores[0] <= 0 and scores[1] == -math.inf
