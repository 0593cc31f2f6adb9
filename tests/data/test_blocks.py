"""The order of the rows: complete, shuffled, fresh every epoch, the same on any number of devices."""

import numpy as np
import pytest
import torch

from minigpt.data.blocks import RandomBlocks, ShuffledBlocks
from minigpt.data.streams import TrainStream, check_warmup

TEXT = np.arange(1000, dtype=np.uint16)


def shuffled(seed=1, num_tokens=1000, block_size=16):
    return ShuffledBlocks(num_tokens=num_tokens, block_size=block_size, seed=seed)


@pytest.mark.parametrize(("num_tokens", "block_size"), [(1000, 16), (33, 16), (4099, 1), (10_007, 64), (777, 8)])
def test_an_epoch_covers_the_text_once(num_tokens, block_size):
    blocks = shuffled(num_tokens=num_tokens, block_size=block_size)
    for epoch in range(3):
        starts = blocks.starts(epoch, blocks.num_blocks)
        assert len(set(starts % block_size)) == 1, "one offset an epoch"
        assert len(set(starts)) == blocks.num_blocks, "no block twice"
        assert starts.min() >= 0 and starts.max() + block_size + 1 <= num_tokens, "rows inside the text"
    assert num_tokens - blocks.num_blocks * block_size < 2 * block_size, "nothing but the cut ends is left out"


def test_epochs_differ_in_order_and_offset():
    blocks = shuffled(num_tokens=100_000)
    first, second = (blocks.starts(epoch, blocks.num_blocks) for epoch in (0, 1))
    assert len({int(blocks.starts(e * blocks.num_blocks, 1)[0]) % 16 for e in range(20)}) > 5
    for order in (first, second):
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_rows_are_a_function_of_seed_and_step():
    assert np.array_equal(shuffled().starts(7, 12), shuffled().starts(7, 12))
    assert not np.array_equal(shuffled(seed=2).starts(7, 12), shuffled().starts(7, 12))
    by_two = np.concatenate([shuffled().starts(step, 6) for step in (14, 15)])
    assert np.array_equal(by_two, shuffled().starts(7, 12)), "the batch size cuts one and the same order"


def test_golden_rows():
    """These numbers may change only when the order is meant to change: then no run can be resumed across versions."""
    assert shuffled().starts(0, 6).tolist() == GOLDEN_SHUFFLED
    assert RandomBlocks(num_tokens=1000, block_size=16, seed=1).starts(3, 6).tolist() == GOLDEN_RANDOM


GOLDEN_SHUFFLED = [799, 127, 751, 975, 335, 319]
GOLDEN_RANDOM = [20, 148, 199, 357, 74, 172]


def test_random_blocks_start_anywhere():
    starts = RandomBlocks(num_tokens=100, block_size=16, seed=1).starts(0, 20_000)
    assert starts.min() == 0 and starts.max() == 83  # 83 + 16 is the last target's position
    assert np.bincount(starts).min() > 150  # 238 expected


@pytest.mark.parametrize("kind", [ShuffledBlocks, RandomBlocks])
def test_a_text_that_is_too_short_is_refused(kind):
    with pytest.raises(ValueError, match="too short"):
        kind(num_tokens=16, block_size=16, seed=1)


def stream(rank=0, world_size=1, micro_batches=1, first_step=0, blocks=None, sequence_warmup=()):
    return TrainStream(
        TEXT,
        blocks or shuffled(),
        batch_size=12,
        micro_batches=micro_batches,
        rank=rank,
        world_size=world_size,
        first_step=first_step,
        last_step=5,
        sequence_warmup=sequence_warmup,
    )


def test_sequence_warmup_cuts_the_same_tokens_into_shorter_rows():
    short = stream(first_step=1, sequence_warmup=[(4, 2), (8, 4)])
    for (inputs, targets), (whole, _), length in zip(short, stream(first_step=1), (4, 8, 8, 16), strict=True):
        assert inputs.shape == targets.shape == (12 * 16 // length, length)
        assert (targets == inputs + 1).all()
        assert torch.equal(inputs.flatten(), whole.flatten())


@pytest.mark.parametrize("pairs", [[[5, 10]], [[4, 10], [8, 10]], [[4]], [[0, 3]], [["a", 3]], [4, 3]])
def test_a_sequence_warmup_that_cannot_be_is_refused(pairs):
    with pytest.raises(ValueError, match=r"sequence_warmup=.* must be pairs"):
        check_warmup(pairs, 16)


def rows(*streams):
    """The first token of every row of each step, whichever stream and micro-batch it came by."""
    per_step = []
    for batches in zip(*map(list, streams), strict=True):
        per_step.append(sorted(int(x) for inputs, _ in batches for x in inputs[:, 0]))
    return per_step


@pytest.mark.parametrize("kind", [ShuffledBlocks, RandomBlocks])
def test_targets_are_the_next_tokens(kind):
    inputs, targets = next(iter(stream(blocks=kind(num_tokens=1000, block_size=16, seed=1))))
    assert inputs.shape == targets.shape == (12, 16)
    assert (targets == inputs + 1).all()  # the text counts up
    assert inputs.is_contiguous() and targets.is_contiguous(), "else their way to a GPU is not the pinned one"


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_devices_share_the_rows_of_one_device(world_size):
    assert rows(*(stream(rank, world_size) for rank in range(world_size))) == rows(stream())


def test_micro_batches_share_the_rows_of_a_step():
    micro = list(stream(micro_batches=3))
    merged = [sorted(int(x) for inputs, _ in micro[i : i + 3] for x in inputs[:, 0]) for i in range(0, 15, 3)]
    assert merged == rows(stream())


def test_a_resumed_stream_goes_on_where_it_stopped():
    assert rows(stream(first_step=3)) == rows(stream())[3:]
    assert len(stream(first_step=3)) == len(stream()) == 5  # Lightning counts the steps that are done


def test_rows_must_divide():
    with pytest.raises(ValueError, match="must divide"):
        stream(world_size=5)
