"""What a command does before it imports anything heavy."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.startup import StartNotice, limit_spinning

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch, chosen, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    limit_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_torch_is_loaded_after_the_spin_count_is_set():
    code = """
import os, sys
sys.argv = ["generate.py", "run=nowhere", "prompt=A"]
import minigpt.startup, minigpt.cli
assert "torch" not in sys.modules
original = minigpt.cli.limit_spinning
def check():
    original()
    assert "torch" not in sys.modules and os.environ["GOMP_SPINCOUNT"]
    print("checked")
minigpt.cli.limit_spinning = check
import generate
generate.main()
"""
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, env=env)
    assert done.stdout == "checked\n" and done.returncode == 2, done.stderr


def test_a_terminal_sees_a_line_at_once_and_nothing_of_it_stays(tmp_path):
    leader, follower = pty.openpty()
    command = [sys.executable, str(ROOT / "src/generate.py"), f"run={tmp_path}/nowhere"]
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stderr=follower, stdout=subprocess.DEVNULL, env=environment) as process:
        os.close(follower)
        seen = b""
        while b"nowhere" not in seen:
            seen += os.read(leader, 4096)
        assert process.wait(60) == 2
    os.close(leader)
    notice, erase, error = seen.partition(b"\r\x1b[2K")
    assert notice.startswith(b"miniGPT is starting") and erase and error.startswith(b"error: no run at")


@pytest.mark.parametrize(("term", "option"), [("dumb", "seed=1"), ("xterm", "quiet=true"), ("xterm", "--help")])
def test_the_line_is_left_out_where_it_cannot_be_erased_or_is_not_wanted(monkeypatch, capsys, term, option):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "argv", ["train.py", option])
    StartNotice().show()
    assert capsys.readouterr().err == ""
