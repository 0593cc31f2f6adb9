"""Building a model only if it fits in memory."""

from functools import partial

import pytest
import torch

from minigpt.model.gpt import Bigram
from minigpt.model.size import build_within_memory


def test_a_model_that_fits_is_built_as_usual():
    torch.manual_seed(3)
    model = build_within_memory(partial(Bigram, block_size=8), vocab_size=65, copies=2)
    torch.manual_seed(3)
    assert torch.equal(model.table.weight, Bigram(vocab_size=65, block_size=8).table.weight)


def test_a_model_that_does_not_fit_is_refused_before_it_takes_memory(monkeypatch):
    with pytest.raises(ValueError, match=r"needs at least 40,000,000 GB"):
        build_within_memory(partial(Bigram, block_size=8), vocab_size=10**8)
    monkeypatch.setattr("minigpt.model.size.memory_bytes", lambda: 4 * 65 * 65 + 1)
    build_within_memory(partial(Bigram, block_size=8), vocab_size=65)
    with pytest.raises(ValueError, match="needs at least"):
        build_within_memory(partial(Bigram, block_size=8), vocab_size=65, copies=2)
