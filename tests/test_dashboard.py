"""`make dashboard`: the newest runs by their names, and the keys that are typed into `wandb leet`."""

import json
import os
import sys

import pytest

from minigpt import dashboard


def add_run(logs, day, run_id, name=None):
    folder = logs / f"wandb/wandb/offline-run-202611{day:02}_101010-{run_id}"
    folder.mkdir(parents=True)
    (folder / f"run-{run_id}.wandb").write_text(run_id)
    if name is not None:
        directory = logs / "runs" / run_id
        directory.mkdir(parents=True)
        (directory / "summary.json").write_text(json.dumps({"wandb_id": run_id, "wandb_name": name}))


def test_runs_are_linked_under_their_names_the_newest_only(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "NEWEST", 4)
    logs, folder = tmp_path / "logs", tmp_path / "view"
    add_run(logs, 1, "old", "too old")
    add_run(logs, 2, "aaa", "optimizer=muon lr=0.01 compile=true")
    add_run(logs, 3, "bbb", "a/b")
    add_run(logs, 4, "ccc", "seed=1")
    add_run(logs, 5, "ddd")
    (logs / "runs/bbb/summary.json").rename(logs / "runs/bbb/kept")
    (logs / "sweeps/one/0").mkdir(parents=True)
    (logs / "runs/bbb/kept").rename(logs / "sweeps/one/0/summary.json")
    (logs / "runs/damaged").mkdir()
    (logs / "runs/damaged/summary.json").write_text("{")
    (logs / "wandb/wandb/latest-run").symlink_to(logs / "wandb/wandb/offline-run-20261105_101010-ddd")
    folder.mkdir()
    assert dashboard.link_runs(logs, folder) == 4
    found = {path.parent.name: (path.name, path.read_text()) for path in folder.glob("*/*")}
    assert found == {
        "run-20261102_101010-muon lr=0.01 compile=true": ("run-muon lr=0.01 compile=true.wandb", "aaa"),
        "run-20261103_101010-a_b": ("run-a_b.wandb", "bbb"),
        "run-20261104_101010-seed=1": ("run-seed=1.wandb", "ccc"),
        "run-20261105_101010-ddd": ("run-ddd.wandb", "ddd"),
    }


def test_equal_names_at_the_same_second_are_told_apart(tmp_path):
    for run_id in ("aaa", "bbb"):
        add_run(tmp_path / "logs", 1, run_id, "seed=1")
    dashboard.link_runs(tmp_path / "logs", tmp_path)
    assert {path.read_text() for path in tmp_path.glob("run-*/*.wandb")} == {"aaa", "bbb"}


def test_without_a_run_it_says_how_to_train_one(tmp_path):
    with pytest.raises(SystemExit, match=r"error: no run of W&B in .*: train one with python src/train.py"):
        dashboard.main(str(tmp_path))


def test_the_layout_of_the_user_stays(tmp_path):
    path = dashboard.write_layout(tmp_path / "leet") / "wandb-leet.json"
    assert json.loads(path.read_text()) == dashboard.LAYOUT
    path.write_text("{}")
    dashboard.write_layout(tmp_path / "leet")
    assert path.read_text() == "{}"


def test_keys_are_typed_once_each_when_the_screen_is_ready():
    typed = dashboard.type_keys()
    pieces = [b"Run", b"s Met", b"rics", b"Metrics", b"Press y to con", b"firm", b"Metrics to confirm"]
    assert [typed(piece) for piece in pieces] == [b"", b"", b"/loss\r\x01", b"", b"", b"y", b""]


PROGRAM = """
import os, sys, termios, time, tty
time.sleep(0.3)
tty.setraw(0)
print("Metrics", end="", flush=True)
keys = os.read(0, 100)
print("Press y to confirm", end="", flush=True)
keys += os.read(0, 100)
open(sys.argv[1], "w").write(repr((keys, os.get_terminal_size())))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_the_program_gets_the_keys_and_the_size_of_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "123")
    monkeypatch.setenv("LINES", "45")
    dashboard.show([sys.executable, "-c", PROGRAM, str(tmp_path / "seen")], dashboard.type_keys())
    assert (tmp_path / "seen").read_text() == repr((b"/loss\r\x01y", os.terminal_size((123, 45))))
