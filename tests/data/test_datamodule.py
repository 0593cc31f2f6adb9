"""The rules of a TextDataModule about its own options and its text."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minigpt.data import datamodule
from minigpt.data.datamodule import SyntheticDataModule, TextDataModule, shorten_line
from minigpt.data.denoising import DenoisingDataModule
from minigpt.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer, WordPieceTokenizer


def make(tmp_path, text="Hear me, you wrangling pirates!\n" * 40, **options):
    (tmp_path / "text.txt").write_text(text)
    return TextDataModule(
        **{"path": "text.txt", "data_dir": str(tmp_path), "block_size": 16, "batch_size": 24, "seed": 1} | options
    )


@pytest.mark.parametrize("kind", [TextDataModule, DenoisingDataModule])
def test_a_path_of_one_s_own_is_never_downloaded_or_checked(tmp_path, kind):
    """`data.path=my.txt` with the address and the SHA-256 of another text beside it."""
    (tmp_path / "my.txt").write_text("Hear me!\n" * 40)
    options = {"url": "http://127.0.0.1:9/a/text.txt", "sha256": "0" * 64, "data_dir": str(tmp_path), "seed": 1}
    options |= {"block_size": 16, "batch_size": 4} | ({"drop_chars": " "} if kind is DenoisingDataModule else {})
    assert kind(path="my.txt", **options).locate_or_download() == tmp_path / "my.txt"
    with pytest.raises(ValueError, match=r"no text at other.txt: give a UTF-8 file with data.path=FILE"):
        kind(path="other.txt", **options).locate_or_download()
    with pytest.raises(ValueError, match=r"a/text.txt does not exist and could not be downloaded"):
        kind(**options).locate_or_download()
    assert {p.name for p in tmp_path.rglob("*.txt")} == {"my.txt"}


def test_a_text_or_its_address_must_be_given(tmp_path):
    with pytest.raises(ValueError, match=r"data.path must be given"):
        make(tmp_path, path=None)


def test_the_example_prompt_is_the_first_line_of_the_text(tmp_path):
    assert make(tmp_path, text="\n  First Citizen:\nBefore\n" * 40).example_prompt == "First Citizen:"
    assert shorten_line("a" * 30 + " bcd" * 5) == "a" * 30 + " bcd bcd"
    options = {"drop_chars": " ", "lowercase": True, "block_size": 40, "batch_size": 4, "seed": 1}
    data = DenoisingDataModule(path="text.txt", data_dir=str(tmp_path), **options)
    assert data.example_prompt == "firstcitizen:"
    assert make(tmp_path, text="Short\n" * 20).example_prompt == "Short"


def test_the_dev_split_is_the_end_of_the_training_split(tmp_path):
    options = {"num_chars": 4000, "generator_seed": 1, "data_dir": str(tmp_path), "seed": 1}
    full, dev = (
        SyntheticDataModule(**options, block_size=16, batch_size=4, dev_split=dev_split) for dev_split in (False, True)
    )
    assert len(dev.corpus.val) == len(full.corpus.val) == 400
    assert np.array_equal(np.concatenate((dev.corpus.train, dev.corpus.val)), full.corpus.train)
    assert "tuning" in dev.warning


@pytest.mark.parametrize("dev_split", [False, True])
def test_augmentation_and_sampler_see_the_training_part_alone(tmp_path, dev_split):
    seen = []

    class Watch:
        def __init__(self, *, tokens, tokenizer, seed):
            self.tokens = tokens
            seen.append((tokens.copy(), seed))

        def sequences(self, start_indices, length):
            assert (start_indices + length).max() <= len(self.tokens)
            return self.tokens[start_indices[:, None] + np.arange(length)]

    options = {"num_chars": 4000, "generator_seed": 1, "data_dir": str(tmp_path), "seed": 3, "augmentation": Watch}
    data = SyntheticDataModule(**options, block_size=16, batch_size=50, dev_split=dev_split)
    text = data.locate_or_download().read_text()[: 3200 if dev_split else 3600]
    ((tokens, seed),) = [seen[-1] for _ in [data.corpus]]
    assert data.corpus.tokenizer.decode(tokens) == text and seed == 3
    assert data.tokens_per_epoch == len(text)
    place = {"rank": 0, "world_size": 1, "micro_batches": 1, "first_step": 0, "last_step": 8, "batch_size": 50}
    assert sum(len(inputs) for inputs, _ in data.train_loader(**place)) == 400


def test_the_loaders_are_those_of_the_trainers_device_and_step(tmp_path):
    data = make(tmp_path, " ".join(map(str, range(400))), batch_size=24, seq_len_warmup=[[8, 4]])
    place = {"global_rank": 1, "world_size": 2, "global_step": 3, "max_steps": 5, "accumulate_grad_batches": 3}
    data.trainer = SimpleNamespace(**place, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    loader = data.train_dataloader()
    batches = list(loader)
    assert [tuple(inputs.shape) for inputs, _ in batches] == [(8, 8)] * 3 + [(4, 16)] * 3 and not loader.pin
    own = {"batch_size": 24, "micro_batches": 3, "rank": 1, "world_size": 2, "seq_len_warmup": [(8, 4)]}
    same = list(data.train_loader(**own, first_step=3, last_step=5))
    assert all(torch.equal(a, b) for one, two in zip(batches, same, strict=True) for a, b in zip(one, two, strict=True))
    halves = [list(data.val_loader(rank=rank, world_size=2)) for rank in (0, 1)]
    assert torch.equal(next(iter(data.val_dataloader()))[0], halves[1][0][0])
    assert not torch.equal(halves[0][0][0], halves[1][0][0])


def test_a_step_that_no_machine_can_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.batch_size=100000000 .*data.block_size=64 .*no machine holds"):
        make(tmp_path, block_size=64, batch_size=100_000_000)
    make(tmp_path, block_size=64, batch_size=2**22)
    with pytest.raises(ValueError, match=r"no machine holds more than 268,435,456 tokens"):
        make(tmp_path, block_size=64, batch_size=2**22 + 1)


def test_the_batch_must_divide_evenly_among_devices_and_micro_batches(tmp_path):
    data = make(tmp_path, batch_size=24)
    data.check_divisible(world_size=4, accumulate_grad_batches=3)
    with pytest.raises(ValueError, match=r"data.batch_size=24 must divide by .* = 4 x 4"):
        data.check_divisible(world_size=4, accumulate_grad_batches=4)


@pytest.mark.parametrize(("length", "block_size"), [(63, 16), (19, 1)])
def test_a_text_of_the_user_that_is_too_short_is_refused_before_it_is_tokenized(tmp_path, length, block_size):
    data = make(tmp_path, "a" * length, block_size=block_size)
    message = rf"text.txt has {length} characters: too short for data.block_size={block_size}"
    with pytest.raises(ValueError, match=message):
        assert data.corpus
    assert not (tmp_path / "cache").exists()
    assert make(tmp_path, "a" * (length + 1), block_size=block_size).corpus


def test_a_long_text_is_not_read_to_measure_it(tmp_path, monkeypatch):
    monkeypatch.setattr(datamodule, "LONG_TEXT_BYTES", 62)
    with pytest.raises(ValueError, match="split has 56 tokens: too short for block_size 30"):
        assert make(tmp_path, "a" * 63, block_size=30).corpus, "the sampler refuses it"


@pytest.mark.parametrize(
    "tokenizer",
    [
        lambda: CharTokenizer(characters="abc"),
        lambda: BPETokenizer(vocab_size=257, merges=["a b"]),
        lambda: WordPieceTokenizer(vocab_size=3, pieces=["a", "b", "ab"]),
    ],
    ids=["char", "bpe", "wordpiece"],
)
def test_a_vocabulary_cannot_be_configured(tmp_path, tokenizer):
    with pytest.raises(ValueError, match="learns its vocabulary from the text"):
        make(tmp_path, tokenizer=tokenizer)


def test_any_tokenizer_can_be_chosen(tmp_path):
    assert make(tmp_path).corpus.tokenizer.kind == "char"
    assert make(tmp_path, tokenizer=ByteTokenizer).corpus.tokenizer.kind == "byte"


def test_only_denoising_has_pairs_of_sequences():
    assert not TextDataModule.seq2seq and not SyntheticDataModule.seq2seq and DenoisingDataModule.seq2seq
