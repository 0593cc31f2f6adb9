"""Loaders: the same sequences of a step on any number of devices, and every token once in validation."""

import numpy as np
import pytest
import torch

from minigpt.data.loaders import IGNORE_INDEX, TrainLoader, ValLoader, check_warmup
from minigpt.data.samplers import RandomSampler, ShuffledSampler

TOKENS = np.arange(1000, dtype=np.uint16)


def loader(rank=0, world_size=1, micro_batches=1, first_step=0, kind=ShuffledSampler, seq_len_warmup=()):
    return TrainLoader(
        TOKENS,
        kind(num_tokens=1000, block_size=16, seed=1),
        batch_size=12,
        micro_batches=micro_batches,
        rank=rank,
        world_size=world_size,
        first_step=first_step,
        last_step=5,
        seq_len_warmup=seq_len_warmup,
    )


def first_tokens(*loaders):
    """The first token of every sequence of each step, from whichever device and micro-batch."""
    return [
        sorted(int(token) for inputs, _ in batches for token in inputs[:, 0])
        for batches in zip(*map(list, loaders), strict=True)
    ]


@pytest.mark.parametrize("kind", [ShuffledSampler, RandomSampler])
def test_targets_are_the_next_tokens(kind):
    inputs, targets = next(iter(loader(kind=kind)))
    assert inputs.shape == targets.shape == (12, 16)
    assert (targets == inputs + 1).all()  # the tokens of this text count up
    assert inputs.is_contiguous() and targets.is_contiguous(), "else torch copies them through unpinned memory"


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_several_devices_have_the_sequences_of_one(world_size):
    assert first_tokens(*(loader(rank, world_size) for rank in range(world_size))) == first_tokens(loader())


def test_micro_batches_have_the_sequences_of_a_step():
    micro = list(loader(micro_batches=3))
    merged = [sorted(int(x) for inputs, _ in micro[i : i + 3] for x in inputs[:, 0]) for i in range(0, 15, 3)]
    assert merged == first_tokens(loader())


def test_a_resumed_loader_continues_where_it_stopped():
    assert first_tokens(loader(first_step=3)) == first_tokens(loader())[3:]
    assert len(loader(first_step=3)) == len(loader()) == 5  # Lightning counts the steps that are done


def test_sequences_must_divide_evenly():
    message = r"data.batch_size=12 must divide by trainer.devices x trainer.accumulate_grad_batches = 5 x 2"
    with pytest.raises(ValueError, match=message):
        loader(world_size=5, micro_batches=2)


def test_the_warmup_splits_the_same_tokens_into_shorter_sequences():
    short = loader(first_step=1, seq_len_warmup=[(4, 2), (8, 4)])
    for (inputs, targets), (full, _), length in zip(short, loader(first_step=1), (4, 8, 8, 16), strict=True):
        assert inputs.shape == targets.shape == (12 * 16 // length, length)
        assert (targets == inputs + 1).all()
        assert torch.equal(inputs.flatten(), full.flatten())


@pytest.mark.parametrize("pairs", [[[5, 10]], [[4, 10], [8, 10]], [[4]], [[0, 3]], [["a", 3]], [4, 3]])
def test_an_invalid_warmup_is_refused(pairs):
    with pytest.raises(ValueError, match=r"seq_len_warmup=.* must be pairs"):
        check_warmup(pairs, 16)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 4), (3, 5), (4, 64)])
@pytest.mark.parametrize("length", [2, 16, 17, 18, 150])
def test_validation_predicts_every_token_once(world_size, batch_size, length):
    tokens = np.arange(length)
    loaders = [
        ValLoader(tokens, block_size=16, batch_size=batch_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [list(each) for each in loaders]
    assert {len(b) for b in batches} == {len(each) for each in loaders} and len(set(map(len, batches))) == 1
    pairs = [
        (i, t)
        for of_device in batches
        for inputs, targets in of_device
        for i, t in zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True)
        if t != IGNORE_INDEX
    ]
    assert sorted(pairs) == [(i, i + 1) for i in range(length - 1)]
