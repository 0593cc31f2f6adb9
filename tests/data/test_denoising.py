"""Denoising: how lines are split and corrupted, what a batch holds, and that several devices have the lines of one."""

import numpy as np
import pytest
import torch

from minigpt.data.denoising import DenoisingDataModule, PairValLoader, SyntheticDenoisingDataModule, read_lines
from minigpt.data.loaders import IGNORE_INDEX
from minigpt.data.renaming import EntityRenaming
from minigpt.data.tokenizer import LineTokenizer, load_tokenizer

LINES = [f"{'ab' * (i % 4)}c line {i}" for i in range(40)]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(LINES))
    return make(tmp_path)


def make(folder, **options):
    options = {"drop_chars": "ab ", "block_size": 20, "batch_size": 12, "seed": 1} | options
    module = DenoisingDataModule(path="text.txt", data_dir=str(folder), **options)
    assert module.corpus, "locates, checks and reads the text"
    return module


def loader(data, rank=0, world_size=1, micro_batches=1, first_step=0, batch_size=12):
    place = {"rank": rank, "world_size": world_size, "micro_batches": micro_batches}
    return data.train_loader(batch_size=batch_size, first_step=first_step, last_step=5, **place)


def texts(data, batch):
    """The source and the target of each line of a batch."""
    (source, shifted), targets = batch
    tokenizer = data.corpus.tokenizer
    assert (shifted[:, 0] == tokenizer.bos_id).all()
    inputs, counted = shifted[:, 1:], targets[:, :-1] != IGNORE_INDEX
    assert torch.equal(inputs[counted], targets[:, :-1][counted]), "each target is the input of the next position"
    targets = targets.where(targets != IGNORE_INDEX, tokenizer.pad_id)
    return [tuple(map(tokenizer.decode, pair)) for pair in zip(source.tolist(), targets.tolist(), strict=True)]


def test_a_batch_computed_by_hand():
    tokenizer = LineTokenizer("abc", drop_chars="a")
    pairs = tokenizer.encode_pairs(["cab", "a"], 6)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (3, 4, 5, 6)
    assert pairs.tolist() == [[[2, 1, 4, 5, 5, 5], [2, 0, 1, 4, 5, 5]], [[4, 5, 5, 5, 5, 5], [0, 4, 5, 5, 5, 5]]]
    (((source, shifted), targets),) = list(PairValLoader(pairs, tokenizer, batch_size=3))
    assert source.tolist() == [[2, 1, 4], [4, 5, 5]]
    assert shifted.tolist() == [[3, 2, 0, 1], [3, 0, 4, 5]]
    assert targets.tolist() == [[2, 0, 1, 4], [0, 4, IGNORE_INDEX, IGNORE_INDEX]]


def test_corruption_is_idempotent_and_can_convert_to_lower_case():
    tokenizer = load_tokenizer(LineTokenizer("QUALITY of mercy", drop_chars=" f", lowercase=True).state())
    assert tokenizer.corrupt("QUALITY of mercy") == "qualityomercy" == tokenizer.corrupt("qualityomercy")
    assert tokenizer.decode(tokenizer.encode_lines(["qualit"], 8)[0]) == "qualit", "lower case is in the vocabulary"
    assert load_tokenizer(LineTokenizer("ab").state()).corrupt("ab") == "ab"


def test_a_line_across_the_split_belongs_to_neither(tmp_path):
    (tmp_path / "text.txt").write_text("one\n\ntwo two\n  \nthree three three\nfour\n")
    train, val = read_lines(tmp_path / "text.txt", 0.5, 8)
    assert (train, val) == (["one", "two two"], ["four"])
    assert read_lines(tmp_path / "text.txt", 1.0, 8) == ([], ["one", "two two", "three t", "hree th", "ree", "four"])


def test_an_epoch_has_every_line_once(data):
    first, second, *_ = (texts(data, batch) for batch in loader(data, batch_size=len(data.train_pairs)))
    assert 34 <= len(first) <= 36 and data.tokens_per_epoch == len(first) * 20
    assert sorted(first) == sorted((line.translate(str.maketrans("", "", "ab ")), line) for line in LINES[: len(first)])
    assert sorted(second) == sorted(first) and second != first, "in another order"


@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (1, 3), (3, 2)])
def test_devices_and_micro_batches_have_the_lines_of_a_step(data, world_size, micro_batches):
    steps = [sorted(texts(data, batch)) for batch in loader(data)]
    devices = [list(loader(data, rank, world_size, micro_batches)) for rank in range(world_size)]
    for step, lines in enumerate(steps):
        own = [b for device in devices for b in device[step * micro_batches : (step + 1) * micro_batches]]
        assert sorted(line for batch in own for line in texts(data, batch)) == lines
    assert len({str(lines) for lines in steps}) == 5, "each step has its own"


def test_a_resumed_loader_continues_and_the_seed_determines_the_order(data, tmp_path):
    def targets(loader):
        return [batch[1].tolist() for batch in loader]

    assert targets(loader(data, first_step=3)) == targets(loader(make(tmp_path)))[3:]
    assert targets(loader(make(tmp_path, seed=2))) != targets(loader(data))


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (2, 3), (3, 64)])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_validation_has_every_line_once(data, world_size, batch_size, count):
    tokenizer = data.corpus.tokenizer
    pairs = tokenizer.encode_pairs(LINES[:count], 20)
    place = {"batch_size": batch_size, "world_size": world_size}
    devices = [list(PairValLoader(pairs, tokenizer, rank=rank, **place)) for rank in range(world_size)]
    assert len({len(batches) for batches in devices}) == 1, "all devices have the same number of batches"
    lines = [line for batches in devices for batch in batches for line in texts(data, batch)]
    assert sorted(target for _, target in lines if target) == sorted(LINES[:count])
    counted = sum((batch[1] != IGNORE_INDEX).sum().item() for batches in devices for batch in batches)
    assert counted == sum(len(line) + 1 for line in LINES[:count])


def test_unsuitable_lines_texts_and_options_are_refused(data, tmp_path):
    tokenizer = data.corpus.tokenizer
    with pytest.raises(ValueError, match="a line of 21 characters is too long: the model takes 19"):
        tokenizer.encode_lines(["c" * 21], 20)
    with pytest.raises(ValueError, match="outside the vocabulary: 'Ω'"):
        tokenizer.encode_lines(["Ω"], 20)
    (tmp_path / "text.txt").write_text("one line without an end " * 9)
    with pytest.raises(ValueError, match="takes no seq_len_warmup, dev_split, augmentation"):
        make(tmp_path, augmentation=EntityRenaming)
    with pytest.raises(ValueError, match="0 lines to train on and 0 to validate on"):
        make(tmp_path)


def test_the_synthetic_play_has_lines_too(tmp_path):
    options = {"data_dir": str(tmp_path), "block_size": 64, "batch_size": 2, "seed": 1, "drop_chars": " "}
    data = SyntheticDenoisingDataModule(num_chars=3000, generator_seed=1, **options)
    assert data.corpus and len(data.train_pairs) > 40 and "synthetic text" in data.warning
    _, val = read_lines(data.locate_or_download(), 0.1, 64)
    assert np.array_equal(data.val_pairs, data.corpus.tokenizer.encode_pairs(val, 64))
