"""Lines to restore: how a text is cut, what a batch holds, and that it is the same on any number of devices."""

import numpy as np
import pytest
import torch

from minigpt.data.renaming import Renaming
from minigpt.data.restore import PairValidationStream, PocketRestoreDataModule, RestoreDataModule, read_lines
from minigpt.data.streams import IGNORED
from minigpt.data.tokenizer import LineTokenizer, load_tokenizer

LINES = [f"{'ab' * (i % 4)}c line {i}" for i in range(40)]


@pytest.fixture
def data(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(LINES))
    return make(tmp_path)


def make(folder, **options):
    options = {"drop": "ab ", "block_size": 20, "batch_size": 12, "seed": 1} | options
    module = RestoreDataModule(path="text.txt", data_dir=str(folder), **options)
    assert module.corpus, "finds, checks and reads the text"
    return module


def stream(data, rank=0, world_size=1, micro_batches=1, first_step=0, batch_size=12):
    place = {"rank": rank, "world_size": world_size, "micro_batches": micro_batches}
    return data.train_stream(batch_size=batch_size, first_step=first_step, last_step=5, **place)


def texts(data, batch):
    """Source and target of each row of a batch."""
    (source, before), targets = batch
    tokenizer = data.corpus.tokenizer
    assert (before[:, 0] == tokenizer.begin).all()
    shifted, counted = before[:, 1:], targets[:, :-1] != IGNORED
    assert torch.equal(shifted[counted], targets[:, :-1][counted]), "each target is read before the next one"
    targets = targets.where(targets != IGNORED, tokenizer.padding)
    return [tuple(map(tokenizer.decode, row)) for row in zip(source.tolist(), targets.tolist(), strict=True)]


def test_a_batch_by_hand():
    tokenizer = LineTokenizer("abc", drop="a")
    pairs = tokenizer.encode_pairs(["cab", "a"], 6)
    assert (tokenizer.begin, tokenizer.end, tokenizer.padding, tokenizer.vocab_size) == (3, 4, 5, 6)
    assert pairs.tolist() == [[[2, 1, 4, 5, 5, 5], [2, 0, 1, 4, 5, 5]], [[4, 5, 5, 5, 5, 5], [0, 4, 5, 5, 5, 5]]]
    (((source, before), targets),) = list(PairValidationStream(pairs, tokenizer, batch_size=3))
    assert source.tolist() == [[2, 1, 4], [4, 5, 5]]
    assert before.tolist() == [[3, 2, 0, 1], [3, 0, 4, 5]]
    assert targets.tolist() == [[2, 0, 1, 4], [0, 4, IGNORED, IGNORED]]


def test_damage_can_be_repeated_and_folds_case():
    tokenizer = load_tokenizer(LineTokenizer("QUALITY of mercy", drop=" f", fold_case=True).state())
    assert tokenizer.damage("QUALITY of mercy") == "qualityomercy" == tokenizer.damage("qualityomercy")
    assert tokenizer.decode(tokenizer.encode_lines(["qualit"], 8)[0]) == "qualit", "lower case is in the vocabulary"
    assert load_tokenizer(LineTokenizer("ab").state()).damage("ab") == "ab"


def test_the_line_that_is_cut_belongs_to_neither_part(tmp_path):
    (tmp_path / "text.txt").write_text("one\n\ntwo two\n  \nthree three three\nfour\n")
    train, val = read_lines(tmp_path / "text.txt", 0.5, 8)
    assert (train, val) == (["one", "two two"], ["four"])
    assert read_lines(tmp_path / "text.txt", 1.0, 8) == ([], ["one", "two two", "three t", "hree th", "ree", "four"])


def test_an_epoch_has_every_line_once(data):
    first, second, *_ = (texts(data, batch) for batch in stream(data, batch_size=len(data.train_pairs)))
    assert 34 <= len(first) <= 36 and data.tokens_per_epoch == len(first) * 20
    assert sorted(first) == sorted((line.translate(str.maketrans("", "", "ab ")), line) for line in LINES[: len(first)])
    assert sorted(second) == sorted(first) and second != first, "in another order"


@pytest.mark.parametrize(("world_size", "micro_batches"), [(2, 1), (1, 3), (3, 2)])
def test_devices_and_micro_batches_share_the_rows_of_a_step(data, world_size, micro_batches):
    whole = [sorted(texts(data, batch)) for batch in stream(data)]
    shares = [list(stream(data, rank, world_size, micro_batches)) for rank in range(world_size)]
    for step, rows in enumerate(whole):
        own = [b for share in shares for b in share[step * micro_batches : (step + 1) * micro_batches]]
        assert sorted(row for batch in own for row in texts(data, batch)) == rows
    assert len({str(rows) for rows in whole}) == 5, "each step has its own"


def test_a_resumed_stream_goes_on_and_a_seed_names_the_order(data, tmp_path):
    def targets(stream):
        return [batch[1].tolist() for batch in stream]

    assert targets(stream(data, first_step=3)) == targets(stream(make(tmp_path)))[3:]
    assert targets(stream(make(tmp_path, seed=2))) != targets(stream(data))


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 3), (2, 3), (3, 64)])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_validation_has_every_line_once(data, world_size, batch_size, count):
    tokenizer = data.corpus.tokenizer
    pairs = tokenizer.encode_pairs(LINES[:count], 20)
    place = {"batch_size": batch_size, "world_size": world_size}
    shares = [list(PairValidationStream(pairs, tokenizer, rank=rank, **place)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1, "all devices have the same number of batches"
    rows = [row for share in shares for batch in share for row in texts(data, batch)]
    assert sorted(target for _, target in rows if target) == sorted(LINES[:count])
    counted = sum((batch[1] != IGNORED).sum().item() for share in shares for batch in share)
    assert counted == sum(len(line) + 1 for line in LINES[:count])


def test_what_cannot_be_restored_is_refused(data, tmp_path):
    tokenizer = data.corpus.tokenizer
    with pytest.raises(ValueError, match="a line of 21 characters is too long: the model takes 19"):
        tokenizer.encode_lines(["c" * 21], 20)
    with pytest.raises(ValueError, match="outside the vocabulary: 'Ω'"):
        tokenizer.encode_lines(["Ω"], 20)
    (tmp_path / "text.txt").write_text("one line without an end " * 9)
    with pytest.raises(ValueError, match="take no sequence_warmup, development, augmentation"):
        make(tmp_path, augmentation=Renaming)
    with pytest.raises(ValueError, match="0 lines to train on and 0 to validate on"):
        make(tmp_path)


def test_the_play_has_lines_too(tmp_path):
    options = {"data_dir": str(tmp_path), "block_size": 64, "batch_size": 2, "seed": 1, "drop": " "}
    data = PocketRestoreDataModule(num_chars=3000, text_seed=1, **options)
    assert data.corpus and len(data.train_pairs) > 40 and "generated text" in data.notice
    assert np.array_equal(
        data.val_pairs, data.corpus.tokenizer.encode_pairs(read_lines(data.find_text(), 0.1, 64)[1], 64)
    )
