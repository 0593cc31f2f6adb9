"""The token cache of a text."""

import numpy as np
import pytest

from minigpt.data.corpus import HEADER_BYTES, load_or_tokenize

TEXT = "Hear me, you wrangling pirates!\n" * 40


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_last_tenth_is_held_out_and_nothing_is_lost(text, tmp_path):
    corpus = load_or_tokenize(text, tmp_path / "cache", 0.1)
    assert len(corpus.train) == int(0.9 * len(TEXT)) and len(corpus.train) + len(corpus.val) == len(TEXT)
    tokens = np.concatenate((corpus.train, corpus.val))
    assert corpus.tokenizer.decode(tokens) == TEXT


@pytest.mark.parametrize("position", [HEADER_BYTES + 7, 20, 180, 250, -1])
def test_a_corrupted_cache_is_rebuilt(text, tmp_path, position):
    before = np.array(load_or_tokenize(text, tmp_path / "cache", 0.1).train)
    (cache,) = (tmp_path / "cache").glob("*.tokens")
    intact = cache.read_bytes()
    corrupted = bytearray(intact)
    corrupted[position] ^= 1
    cache.write_bytes(corrupted)
    after = load_or_tokenize(text, tmp_path / "cache", 0.1)
    assert cache.read_bytes() == intact
    assert np.array_equal(after.train, before)


def test_a_truncated_cache_is_rebuilt(text, tmp_path):
    load_or_tokenize(text, tmp_path / "cache", 0.1)
    (cache,) = (tmp_path / "cache").glob("*.tokens")
    intact = cache.read_bytes()
    cache.write_bytes(intact[:-100])
    load_or_tokenize(text, tmp_path / "cache", 0.1)
    assert cache.read_bytes() == intact


def test_a_changed_text_has_its_own_cache(text, tmp_path):
    load_or_tokenize(text, tmp_path / "cache", 0.1)
    text.write_text(TEXT.replace("pirates", "parrots"), encoding="utf-8")
    assert "parrots" in (c := load_or_tokenize(text, tmp_path / "cache", 0.1)).tokenizer.decode(c.train)


def test_a_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_or_tokenize(path, tmp_path / "cache", 0.1)


def test_a_large_vocabulary_takes_wider_tokens(tmp_path):
    path = tmp_path / "wide.txt"
    path.write_text("".join(chr(0x4E00 + i) for i in range(3000)), encoding="utf-8")
    corpus = load_or_tokenize(path, tmp_path / "cache", 0.1)
    assert corpus.train.dtype == np.uint16
    assert corpus.tokenizer.decode(corpus.train[-2:]) == chr(0x4E00 + 2698) + chr(0x4E00 + 2699)
