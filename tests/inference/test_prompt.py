"""The prompt of generate.py: typed, from a file, from standard input."""

import io
import sys
from types import SimpleNamespace

import pytest

from minigpt.inference.prompt import MAX_BYTES, read_prompt


def test_a_prompt_is_typed_or_in_a_file(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes("\ufeffWho's there?\r\nNay, answer me:\n\n".encode())
    assert read_prompt(None, None) == "\n"
    assert read_prompt("", None) == "" and read_prompt("-", None) == "-"
    assert read_prompt(None, str(file)) == "Who's there?\nNay, answer me:\n", "without the last line break"


def test_standard_input_is_a_file_too(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"ROMEO:\n")))
    assert read_prompt(None, "-") == "ROMEO:"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read: No such file"), (b"caf\xe9", "not UTF-8 text"), (b"x" * (MAX_BYTES + 1), "16 MiB")],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path, content, says):
    file = tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_prompt(None, str(file))


def test_a_prompt_is_given_once(tmp_path):
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_prompt(None, str(tmp_path))
    with pytest.raises(ValueError, match="both given"):
        read_prompt("a", "b")
