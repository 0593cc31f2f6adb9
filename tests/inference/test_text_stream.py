"""Text as its tokens arrive, and stop strings that begin and end within tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data.tokenizer import BPETokenizer, ByteTokenizer, CharTokenizer
from minigpt.inference.text_stream import TextStream, ends_with_stop, find_stop


class Pieces:
    """A tokenizer of given pieces."""

    def __init__(self, *pieces):
        self.tokens = [piece.encode() for piece in pieces]

    def decode(self, ids):
        return b"".join(self.tokens[i] for i in ids).decode(errors="replace")


def test_a_stop_string_is_found_across_tokens_and_within_one():
    stream = TextStream(Pieces("To ", "be, o", "r not", " to be"), ["or n", "nothing"])
    assert [stream.add(token) for token in range(3)] == ["To ", "be, ", "or n"], "its beginning is held back"
    assert stream.stopped and stream.text == "To be, or n"
    assert stream.add(3) == "" == stream.finish() and stream.text == "To be, or n"


def test_what_is_held_back_is_returned_when_it_was_no_stop():
    stream = TextStream(Pieces("a", "b"), ["aab"])
    assert [stream.add(token) for token in (0, 0, 0)] == ["", "", "a"]
    assert stream.finish() == "aa" and stream.text == "aaa" and not stream.stopped


def test_a_character_of_several_tokens_is_returned_when_it_is_complete():
    stream, ids = TextStream(ByteTokenizer(), ["ï!"]), list("naï!ve".encode())
    assert [stream.add(token) for token in ids[:5]] == ["n", "a", "", "", "ï!"] and stream.stopped
    stream = TextStream(ByteTokenizer())
    assert [stream.add(ids[2]), stream.finish()] == ["", "\ufffd"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(0, 3), max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
)
def test_a_stream_is_the_text_up_to_the_first_stop_string(pieces, ids, stop):
    """Whatever the pieces are; against a search after each character."""
    ids = [i % len(pieces) for i in ids]
    whole = "".join(pieces[i] for i in ids)
    end = next((n for n in range(len(whole) + 1) if any(whole[:n].endswith(s) for s in stop)), None)
    stream = TextStream(Pieces(*pieces), stop)
    found = "".join(stream.add(i) for i in ids) + stream.finish()
    assert found == stream.text == whole[:end] and stream.stopped == (end is not None)
    assert find_stop(whole, stop) == end


def test_bpe_pieces_hide_no_stop_string():
    text = "the cat sat on the mat and the rat " * 20
    tokenizer = BPETokenizer(vocab_size=273).train("".join(sorted(set(text))), [text])
    ids = tokenizer.encode("the rat sat").tolist()
    assert [tokenizer.tokens[i] for i in ids] == [b"the", b" rat", b" sat"]
    stream = TextStream(tokenizer, ["at s"])
    assert "".join(map(stream.add, ids)) == "the rat s" and stream.stopped


@pytest.mark.parametrize(("text", "ends"), [("xab", True), ("ab", True), ("a", False), ("abx", True), ("abxy", False)])
def test_the_newest_tokens_are_searched_for_stop_strings(text, ends):
    tokenizer = CharTokenizer("abxy")
    ids = torch.from_numpy(tokenizer.encode(text).astype("int64"))
    assert ends_with_stop(tokenizer, ["ab", "yyy"])(ids[None]).tolist() == [ends]
