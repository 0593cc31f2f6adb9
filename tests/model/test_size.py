"""Building a model only if it fits in memory."""

from functools import partial

import pytest
import torch

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.bag_of_words import BagOfWords
from minigpt.model.embedding_variants import SuffixMatchEmbedding
from minigpt.model.embeddings import RotaryPositions
from minigpt.model.gpt import GPT, Bigram
from minigpt.model.layers import MLP, RMSNorm
from minigpt.model.moe import MixtureOfExperts
from minigpt.model.ngram import Ngram
from minigpt.model.objectives import NextToken
from minigpt.model.rnn import RNN
from minigpt.model.size import build_on_meta, build_within_memory, check_memory, generation_bytes, training_bytes


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


def saved_bytes(model, tokens):
    """What autograd keeps of a forward pass and its loss, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = NextToken().loss(model, tokens, tokens)
    assert loss.requires_grad
    return sum(kept.values())


GPT_OPTIONS = {"num_layers": 2, "num_heads": 2, "dim": 64, "mlp": MLP, "norm": RMSNorm, "positions": RotaryPositions}
GPT_OPTIONS["attention"] = partial(CausalSelfAttention, qk_norm=True)


@pytest.mark.parametrize(
    ("constructor", "block_size"),
    [
        (partial(GPT, **GPT_OPTIONS), 64),
        (partial(GPT, **GPT_OPTIONS), 512),
        (partial(GPT, **GPT_OPTIONS | {"num_layers": 8}), 64),
        (partial(GPT, **GPT_OPTIONS | {"embedding": SuffixMatchEmbedding}), 256),
        (partial(GPT, **GPT_OPTIONS | {"mlp": partial(MixtureOfExperts, num_experts=8, top_k=2)}), 64),
        (partial(RNN, num_layers=2, dim=64, cell="gru"), 64),
        (partial(BagOfWords, dim=64), 64),
        (partial(Ngram, order=4, table_size=1024), 64),
    ],
)
def test_the_estimate_of_a_training_step_is_near_what_autograd_keeps(constructor, block_size):
    model = constructor(vocab_size=65, block_size=block_size)
    tokens = torch.randint(65, (4096 // block_size, block_size))
    sizes = {"block_size": block_size, "vocab_size": 65}
    without, estimated = (training_bytes(model, tokens=n, **sizes) for n in (0, tokens.numel()))
    forward = (estimated - without) * 2 / 3  # the rest is of the backward pass
    assert 0.5 < forward / saved_bytes(model, tokens) < 2


def test_four_numbers_for_each_weight():
    model = Bigram(vocab_size=65, block_size=8)
    assert training_bytes(model, tokens=0, block_size=8, vocab_size=65) == 4 * 4 * 65 * 65


def test_generation_takes_memory_for_each_sequence():
    model = GPT(vocab_size=65, block_size=64, **GPT_OPTIONS)
    sizes = {"block_size": 64, "vocab_size": 65}
    one = generation_bytes(model, sequences=1, max_new_tokens=100, **sizes)
    cache = 4 * 2 * 2 * 64 * 64  # bytes x layers x (keys, values) x dim x positions
    assert one > cache + 4 * 64 * 65 and generation_bytes(model, sequences=10, max_new_tokens=100, **sizes) == 10 * one
    assert generation_bytes(model, sequences=1, max_new_tokens=10**9, **sizes) > 10**9


def test_what_does_not_fit_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr("minigpt.model.size.memory_bytes", lambda: 2 * 10**9)
    check_memory(2 * 10**9, "it", "a.b")
    with pytest.raises(ValueError, match=r"it needs about 3.5 GB of memory and 2 GB are available: lower a\.b"):
        check_memory(35 * 10**8, "it", "a.b")


def make_module(sizes, vocab_size):
    """A module with one parameter of each size."""
    module = torch.nn.Module()
    for number, size in enumerate(sizes):
        module.register_parameter(str(number), torch.nn.Parameter(torch.zeros(size)))
    return module


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [3, 3, 3]])
def test_a_model_far_larger_than_its_weights_is_not_built_to_its_end(sizes):
    limits = {"vocab_size": 0, "max_elements": 2, "max_tensors": 1}
    assert len(list(build_on_meta(partial(make_module, [2] * 4), **limits).parameters())) == 4
    with pytest.raises(ValueError, match="more than 2 weights in 1 tensors"):
        build_on_meta(partial(make_module, sizes), **limits)


def test_tensors_beyond_64_bits_are_no_traceback():
    with pytest.raises(ValueError, match=r"more than 2\^63 bytes"):
        build_within_memory(partial(Bigram, block_size=8), vocab_size=2**40)
