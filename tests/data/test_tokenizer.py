"""Tokenizers: lossless, learned on the training split only, and safe to load from an untrusted file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import text_files
from minigpt.data.corpus import encode_text, load_or_tokenize
from minigpt.data.synthetic import make_play
from minigpt.data.text_files import iter_text_chunks, split_text
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
def test_a_play_is_shorter_in_subwords_and_long_words_are_encoded(kind):
    tokenizer = TRAINED[kind]
    text = PLAY + "a" * 1000 + " " * 200 + "?" * 200
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == {"char": len(set(PLAY)), "byte": 256}.get(kind, 300)
    if kind in ("bpe", "wordpiece"):
        assert len(tokenizer.encode(PLAY)) < 0.8 * len(PLAY)


@pytest.mark.parametrize("kind", ["char", "wordpiece"])
def test_unknown_characters_are_named(kind):
    with pytest.raises(ValueError, match="outside the vocabulary: 'Ω'"):
        TRAINED[kind].encode("a Ω")
    assert TRAINED[kind].known("a Ω") == "a "


@every_kind
def test_half_a_character_is_refused_and_never_shown(kind):
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
def test_the_state_is_plain_data_and_rebuilds_the_tokenizer(kind):
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
def test_an_invalid_state_is_refused(state):
    with pytest.raises(ValueError, match=r"damaged|unknown tokenizer") as refused:
        load_tokenizer(state)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("tokenizer", UNTRAINED[2:], ids=lambda t: t.kind)
def test_a_vocabulary_too_large_for_the_text_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"vocab_size=300 must be at most (257|4):"):
        tokenizer.train("ab", ["ab ab"])


def test_a_vocabulary_too_small_for_the_bytes_or_characters_is_refused():
    with pytest.raises(ValueError, match="vocab_size=256 must be at least 257"):
        BPETokenizer(vocab_size=256)
    with pytest.raises(ValueError, match="vocab_size=3 must be at least 4"):
        WordPieceTokenizer(vocab_size=3).train("abc", ["abc abc"])


def test_byte_letters_are_those_of_the_library():
    from tokenizers.pre_tokenizers import ByteLevel

    from minigpt.data.tokenizer.bpe import byte_letters

    assert sorted(byte_letters()) == sorted(ByteLevel.alphabet())
    text = "".join(map(chr, range(0x800))) + "東😀"
    assert TRAINED["bpe"].decode(TRAINED["bpe"].encode(text)) == text


@pytest.fixture
def text(tmp_path):
    """A text whose last tenth is full of a word that does not occur before."""
    path = tmp_path / "text.txt"
    path.write_text(PLAY[:18_000] + "xylophones é\n" * 153 + "tail tail ", encoding="utf-8")
    return path


@pytest.mark.parametrize("tokenizer", UNTRAINED, ids=lambda t: t.kind)
def test_the_last_tenth_is_held_out_and_never_learned_from(text, tmp_path, tokenizer):
    content = text.read_text()
    corpus = load_or_tokenize(text, tmp_path / "cache", 0.1, tokenizer)
    cut = int(0.9 * len(content))
    assert corpus.tokenizer.decode(corpus.train) == content[:cut]
    assert corpus.tokenizer.decode(corpus.val) == content[cut:]
    assert corpus.val_characters == len(content) - cut
    learned = corpus.tokenizer.tokens
    assert not any(b"xyl" in token or b"phones" in token for token in learned)
    if tokenizer.kind in ("bpe", "wordpiece"):
        assert b" the" in learned and len(learned) == 300
    assert np.array_equal(encode_text(corpus.tokenizer, text, split_text(text, 0.1).train_characters)[0], corpus.val)


def test_tokens_per_character_are_counted(text, tmp_path):
    content = text.read_text()
    held_out = content[int(0.9 * len(content)) :]
    found = {t.kind: load_or_tokenize(text, tmp_path, 0.1, t).tokens_per_character for t in UNTRAINED}
    assert found["char"] == 1
    assert found["byte"] == len(held_out.encode()) / len(held_out) > 1
    pieces = WordPieceTokenizer(vocab_size=4, pieces=["a", "b", " ", "ab"])
    assert pieces.encode("abab ba").tolist() == [3, 3, 2, 1, 0], "longest match first; computed by hand"


@pytest.mark.parametrize("kind", [BPETokenizer, WordPieceTokenizer])
def test_tokens_do_not_depend_on_where_a_chunk_ends(tmp_path, monkeypatch, kind):
    blanks = ["\n", "\n\n", " \n", "\n \n  ", "\n\t\n", "\n\n\n\n    ", "  ", " "]
    content = "".join(f"word{n % 7}{blanks[n % 8]}" for n in range(3000))
    path = tmp_path / "text.txt"
    path.write_text(content, encoding="utf-8")
    tokenizer = kind(vocab_size=265 if kind is BPETokenizer else 23).train("".join(set(content)), [content])
    for size in range(90, 110, 4):
        monkeypatch.setattr(text_files, "CHUNK_CHARS", size)
        chunks = list(iter_text_chunks(path, size - 3, 15_000))
        part = content[size - 3 : 15_000]
        assert "".join(chunks) == part and len(chunks) > 100 and max(map(len, chunks)) <= 2 * size
        assert np.array_equal(np.concatenate([*map(tokenizer.encode, chunks)]), tokenizer.encode(part))
    path.write_text("word " * 1000)
    assert max(map(len, iter_text_chunks(path))) <= 2 * size, "one long line does not fill the memory"


def test_training_is_repeatable_and_does_not_depend_on_the_pieces():
    for kind, tokenizer in zip(TRAINED, UNTRAINED, strict=True):
        lines = PLAY.splitlines(keepends=True)
        assert tokenizer.train("".join(set(PLAY)), iter(lines)).state() == TRAINED[kind].state()


def test_each_tokenizer_has_its_own_cache(text, tmp_path):
    for vocab_size in (300, 280, 300):
        for kind in (BPETokenizer, WordPieceTokenizer):
            corpus = load_or_tokenize(text, tmp_path / "cache", 0.1, kind(vocab_size=vocab_size))
            assert isinstance(corpus.tokenizer, kind) and corpus.tokenizer.vocab_size == vocab_size
    files = sorted((tmp_path / "cache").glob("*.tokens"))
    assert len(files) == 4
    files[0].write_bytes(files[1].read_bytes())  # bpe-280 by the name, bpe-300 by the content
    assert load_or_tokenize(text, tmp_path / "cache", 0.1, BPETokenizer(vocab_size=280)).tokenizer.vocab_size == 280


def test_a_character_tokenizer_names_unknown_characters():
    tokenizer = CharTokenizer("abc")
    assert tokenizer.encode("cab").tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="'x' 'z'"):
        tokenizer.encode("azxa")
    assert load_tokenizer(tokenizer.state()).decode([2, 1]) == "cb"
    with pytest.raises(ValueError, match="unknown tokenizer"):
        load_tokenizer({"kind": "os.system"})


def test_every_kind_is_tested():
    assert set(TRAINED) == set(KINDS) - {"lines", "pretrained"}  # see test_denoising.py and test_folder_import.py
