"""Sampling: filters against numbers computed by hand, and generation with a cache against recomputation."""

from functools import partial

import pytest
import torch

from minigpt.inference.sampling import generate, sample_token
from minigpt.model.attention import CausalSelfAttention
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.layers import MLP, RMSNorm

PROBABILITIES = torch.tensor([0.5, 0.3, 0.15, 0.05])


def frequencies(**options):
    options = {"temperature": 1.0, "top_k": None, "top_p": None} | options
    logits = PROBABILITIES.log().expand(20_000, 4)
    return torch.bincount(sample_token(logits, **options), minlength=4) / 20_000


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 9}, [0.5, 0.3, 0.15, 0.05]),
        ({"top_p": 0.8}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.8}, [0.625, 0.375, 0, 0]),
        ({"temperature": 0.5}, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"temperature": 1e-37}, [1, 0, 0, 0]),
        ({"temperature": 1e19}, [0.25, 0.25, 0.25, 0.25]),
        ({"top_p": 1e-37}, [1, 0, 0, 0]),
    ],
)
def test_filters(options, expected):
    torch.testing.assert_close(frequencies(**options), torch.tensor(expected, dtype=torch.float), atol=0.015, rtol=0)


@pytest.fixture
def model():
    components = {"attention": partial(CausalSelfAttention, qk_norm=True), "mlp": MLP, "norm": RMSNorm}
    sizes = {"vocab_size": 9, "block_size": 16, "num_layers": 2, "num_heads": 2, "dim": 16}
    model = GPT(**sizes, **components, positions=RotaryPositions)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def test_cached_generation_equals_recomputation(model):
    prompt = torch.randint(9, (3, 4))
    generated = torch.stack(list(generate(model, prompt, max_new_tokens=12, temperature=0)), dim=1)
    tokens = prompt
    for _ in range(12):
        tokens = torch.cat((tokens, model(tokens)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(generated, tokens[:, 4:])


def test_the_second_half_of_a_full_context_is_read_again(model):
    prompt = torch.randint(9, (1, 16))
    generated = torch.stack(list(generate(model, prompt, max_new_tokens=40, temperature=0)), dim=1)
    tokens = torch.cat((prompt, generated), dim=1)[0]
    # The full context of 16 cannot hold a 17th: token 17 follows tokens 9 .. 16 only, and so on until it is full.
    assert tokens[17] == model(tokens[None, 9:17])[0, -1].argmax()
    assert tokens[25] == model(tokens[None, 9:25])[0, -1].argmax()
    assert tokens[26] == model(tokens[None, 18:26])[0, -1].argmax()


def test_a_prompt_longer_than_the_context_is_truncated(model):
    prompt = torch.randint(9, (1, 50))
    (token,) = generate(model, prompt, max_new_tokens=1, temperature=0)
    assert token == model(prompt[:, -16:])[0, -1].argmax()


def test_the_seed_determines_the_sample(model):
    prompt = torch.zeros(1, 1, dtype=torch.long)
    texts = [
        torch.cat(list(generate(model, prompt, max_new_tokens=30, generator=torch.Generator().manual_seed(s))))
        for s in (1, 1, 2)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_a_bigram_generates():
    prompt = torch.zeros(1, 1, dtype=torch.long)
    assert len(list(generate(Bigram(vocab_size=5, block_size=4), prompt, max_new_tokens=9))) == 9
