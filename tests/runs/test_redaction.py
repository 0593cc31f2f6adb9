"""Secrets are in no text that is written."""

import logging

import pytest

from minigpt.runs.directory import write_text_files
from minigpt.runs.log import start_log
from minigpt.runs.redaction import redact
from minigpt.runs.summary import read_summary, write_summary

KEY = "0123456789abcdef-canary"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("SHORT_TOKEN", "a")  # would hide every a


def test_keys_and_passwords_are_hidden():
    assert redact(f"key={KEY}!") == "key=(hidden)!"
    assert redact({"a": [f"{KEY}", 3, None]}) == {"a": ["(hidden)", 3, None]}
    assert redact("https://user:word@host/x?token=abc&b=1") == "https://(hidden)@host/x?token=(hidden)&b=1"


@pytest.mark.parametrize("text", ["all that a run says", "user@host", "a: 1", "http://host/path?q=1", "val_tokens=3"])
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


def test_no_file_of_a_run_has_one(tmp_path):
    write_text_files(tmp_path, {"config.yaml": f"name: {KEY}"})
    write_summary(tmp_path, {"overrides": [f"name={KEY}"]})
    start_log(tmp_path)
    logging.getLogger("minigpt").info("start: %s", KEY)
    assert read_summary(tmp_path) == {"overrides": ["name=(hidden)"]}
    assert "start: (hidden)" in (tmp_path / "train.log").read_text()
    assert not any(KEY in path.read_text() for path in tmp_path.iterdir())
