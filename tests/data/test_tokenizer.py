"""Every kind of tokenizer: without loss, learned on the training part alone, and safe to load from anybody's file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import corpus as corpora
from minigpt.data.corpus import encode_part, open_corpus, read_part, split_text
from minigpt.data.datamodule import TextDataModule
from minigpt.data.pocket import make_play
from minigpt.data.tokenizer import KINDS, BPETokenizer, ByteTokenizer, CharTokenizer, WordPieceTokenizer, load_tokenizer

PLAY = make_play(20_000, 1) + "\n\nNaïve —  «ça»\t va?\n 東京 😀\n"
UNTRAINED = [CharTokenizer(), ByteTokenizer(), BPETokenizer(vocab_size=300), WordPieceTokenizer(vocab_size=300)]
TRAINED = {tokenizer.kind: tokenizer.train("".join(set(PLAY)), iter([PLAY])) for tokenizer in UNTRAINED}
every_kind = pytest.mark.parametrize("kind", TRAINED)


@every_kind
@settings(max_examples=30, deadline=None, database=None)
@given(st.text(max_size=60) | st.text("aA \n\t'é東😀.", max_size=200))
def test_nothing_is_lost(kind, text):
    tokenizer = TRAINED[kind]
    text = tokenizer.known(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and ids.dtype == tokenizer.dtype
    assert "".join(tokenizer.stream(ids)) == text
    assert len(text) == 0 or ids.max() < tokenizer.vocab_size


@every_kind
def test_a_play_is_shorter_in_subwords_and_long_words_are_no_trouble(kind):
    tokenizer = TRAINED[kind]
    text = PLAY + "a" * 1000 + " " * 200 + "?" * 200
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == {"char": len(set(PLAY)), "byte": 256}.get(kind, 300)
    if kind in ("bpe", "wordpiece"):
        assert len(tokenizer.encode(PLAY)) < 0.8 * len(PLAY)


@pytest.mark.parametrize("kind", ["char", "wordpiece"])
def test_what_is_unknown_is_named(kind):
    with pytest.raises(ValueError, match="outside the vocabulary: 'Ω'"):
        TRAINED[kind].encode("a Ω")
    assert TRAINED[kind].known("a Ω") == "a "


@every_kind
def test_half_a_character_is_refused_and_never_drawn(kind):
    tokenizer = TRAINED[kind]
    with pytest.raises(ValueError):
        tokenizer.encode("a\udcff")
    ids = tokenizer.encode("東😀")
    shown = list(tokenizer.stream(ids))
    assert "".join(shown) == "東😀" and "\ufffd" not in "".join(shown)
    if kind == "byte":
        assert shown == ["", "", "東", "", "", "", "😀", ""]
        assert tokenizer.decode(ids[:-1]) == "東\ufffd"


@every_kind
def test_the_state_is_plain_data_and_makes_the_same_tokenizer(kind):
    tokenizer = TRAINED[kind]
    state = json.loads(json.dumps(tokenizer.state()))
    again = load_tokenizer(state)
    assert again.state() == tokenizer.state() == state and again.tokens == tokenizer.tokens
    assert np.array_equal(again.encode(PLAY), tokenizer.encode(PLAY))


BPE, PIECES = {"kind": "bpe", "vocab_size": 258}, {"kind": "wordpiece", "vocab_size": 2}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"kind": ["char"]},
        {"kind": "char", "characters": ""},
        {"kind": "char", "characters": 5},
        {"kind": "char", "characters": "a\ud800"},
        {"kind": "byte", "tokens": []},
        {**BPE, "merges": []},
        {**BPE, "merges": ["a b"]},
        {**BPE, "merges": ["a b", "ab c", "x y"]},
        {**BPE, "merges": ["a b", "xy c"]},
        {**BPE, "merges": ["a b", "ab"]},
        {**BPE, "merges": ["a b", "東 a"]},
        {**BPE, "merges": "a b"},
        {**BPE, "merges": [1, 2]},
        {**BPE, "vocab_size": "x", "merges": ["a b", "ab c"]},
        {**PIECES, "pieces": []},
        {**PIECES, "pieces": ["a"]},
        {**PIECES, "pieces": ["a", None]},
        {**PIECES, "pieces": ["a", "a"]},
        {**PIECES, "pieces": 7},
        {**PIECES, "pieces": ["a", "b"], "unk_token": "x"},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(ValueError, match=r"damaged|unknown tokenizer") as refused:
        load_tokenizer(state)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("tokenizer", UNTRAINED[2:], ids=lambda t: t.kind)
def test_a_vocabulary_that_the_text_cannot_give_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"vocab_size=300 must be at most (257|4):"):
        tokenizer.train("ab", ["ab ab"])


def test_a_vocabulary_has_room_for_what_it_begins_with():
    with pytest.raises(ValueError, match="vocab_size=256 must be at least 257"):
        BPETokenizer(vocab_size=256)
    with pytest.raises(ValueError, match="vocab_size=3 must be at least 4"):
        WordPieceTokenizer(vocab_size=3).train("abc", ["abc abc"])


def test_the_bytes_are_the_library_s():
    from tokenizers.pre_tokenizers import ByteLevel

    from minigpt.data.tokenizer.bpe import byte_letters

    assert sorted(byte_letters()) == sorted(ByteLevel.alphabet())
    text = "".join(map(chr, range(0x800))) + "東😀"
    assert TRAINED["bpe"].decode(TRAINED["bpe"].encode(text)) == text


@pytest.fixture
def text(tmp_path):
    """A text whose last tenth is full of one word that is not in the rest."""
    path = tmp_path / "text.txt"
    path.write_text(PLAY[:18_000] + "xylophones é\n" * 153 + "tail tail ", encoding="utf-8")
    return path


@pytest.mark.parametrize("tokenizer", UNTRAINED, ids=lambda t: t.kind)
def test_the_last_tenth_is_held_out_and_never_learned_from(text, tmp_path, tokenizer):
    content = text.read_text()
    corpus = open_corpus(text, tmp_path / "cache", 0.1, tokenizer)
    cut = int(0.9 * len(content))
    assert corpus.tokenizer.decode(corpus.train) == content[:cut]
    assert corpus.tokenizer.decode(corpus.val) == content[cut:]
    assert corpus.val_characters == len(content) - cut
    learned = corpus.tokenizer.tokens
    assert not any(b"xyl" in token or b"phones" in token for token in learned)
    if tokenizer.kind in ("bpe", "wordpiece"):
        assert b" the" in learned and len(learned) == 300
    assert np.array_equal(encode_part(corpus.tokenizer, text, split_text(text, 0.1)[1])[0], corpus.val)


def test_tokens_per_character_is_a_count(text, tmp_path):
    content = text.read_text()
    held_out = content[int(0.9 * len(content)) :]
    found = {t.kind: open_corpus(text, tmp_path, 0.1, t).tokens_per_character for t in UNTRAINED}
    assert found["char"] == 1
    assert found["byte"] == len(held_out.encode()) / len(held_out) > 1
    pieces = WordPieceTokenizer(vocab_size=4, pieces=["a", "b", " ", "ab"])
    assert pieces.encode("abab ba").tolist() == [3, 3, 2, 1, 0], "the longest first; by hand"


@pytest.mark.parametrize("kind", [BPETokenizer, WordPieceTokenizer])
def test_tokens_do_not_depend_on_where_a_piece_ends(tmp_path, monkeypatch, kind):
    blanks = ["\n", "\n\n", " \n", "\n \n  ", "\n\t\n", "\n\n\n\n    ", "  ", " "]
    content = "".join(f"word{n % 7}{blanks[n % 8]}" for n in range(3000))
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    tokenizer = kind(vocab_size=265 if kind is BPETokenizer else 23).train("".join(set(content)), [content])
    for size in range(90, 110, 4):
        monkeypatch.setattr(corpora, "CHUNK_CHARS", size)
        pieces = list(read_part(path, size - 3, 15_000))
        whole = content[size - 3 : 15_000]
        assert "".join(pieces) == whole and len(pieces) > 100 and max(map(len, pieces)) <= 2 * size
        assert np.array_equal(np.concatenate([*map(tokenizer.encode, pieces)]), tokenizer.encode(whole))
    path.write_text("word " * 1000)
    assert max(map(len, read_part(path))) <= 2 * size, "one long line does not fill the memory"


def test_training_is_the_same_each_time_and_piece_by_piece():
    for kind, tokenizer in zip(TRAINED, UNTRAINED, strict=True):
        lines = PLAY.splitlines(keepends=True)
        assert tokenizer.train("".join(set(PLAY)), iter(lines)).state() == TRAINED[kind].state()


def test_each_tokenizer_has_a_cache_of_its_own(text, tmp_path):
    for vocab_size in (300, 280, 300):
        for kind in (BPETokenizer, WordPieceTokenizer):
            corpus = open_corpus(text, tmp_path / "cache", 0.1, kind(vocab_size=vocab_size))
            assert isinstance(corpus.tokenizer, kind) and corpus.tokenizer.vocab_size == vocab_size
    files = sorted((tmp_path / "cache").glob("*.tokens"))
    assert len(files) == 4
    files[0].write_bytes(files[1].read_bytes())  # bpe-280 by the name, bpe-300 by the content
    assert open_corpus(text, tmp_path / "cache", 0.1, BPETokenizer(vocab_size=280)).tokenizer.vocab_size == 280


def test_the_data_module_takes_any(text, tmp_path):
    options = {"path": str(text), "data_dir": str(tmp_path), "block_size": 8, "batch_size": 2, "seed": 1}
    assert TextDataModule(**options).corpus.tokenizer.kind == "char"
    assert TextDataModule(tokenizer=ByteTokenizer, **options).corpus.tokenizer.kind == "byte"


def test_every_kind_is_tested():
    assert set(TRAINED) == set(KINDS) - {"lines"}  # which is made by a data module, see test_restore.py
