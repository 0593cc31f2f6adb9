"""The CSV file survives a resume; W&B goes online only when that can work."""

import csv
import http.server
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from minigpt.runs.run import Run
from minigpt.runs.run_files import truncate_metrics
from minigpt.training import loggers
from minigpt.training.loggers import CSVLogger, TensorBoard
from minigpt.training.wandb_service import resolve_mode


def run_in(directory):
    return Run(directory, {"seed": 1})


def rows(directory):
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_row_is_on_the_disk_at_once_and_new_columns_join(tmp_path):
    logger = CSVLogger(run=run_in(tmp_path))
    logger.log_metrics({"train/loss": 2.5}, step=1)
    assert rows(tmp_path) == [{"step": "1", "train/loss": "2.5"}]
    logger.log_metrics({"val/loss": 2.25}, step=1)
    assert rows(tmp_path) == [
        {"step": "1", "train/loss": "2.5", "val/loss": ""},
        {"step": "1", "train/loss": "", "val/loss": "2.25"},
    ]


def test_a_resumed_run_has_no_row_twice(tmp_path):
    first = CSVLogger(run=run_in(tmp_path))
    for step in (1, 2, 3):
        first.log_metrics({"train/loss": float(step)}, step=step)
    truncate_metrics(tmp_path / "metrics.csv", 2)
    resumed = CSVLogger(run=run_in(tmp_path))
    resumed.log_metrics({"train/loss": 30.0}, step=3)
    assert [(r["step"], r["train/loss"]) for r in rows(tmp_path)] == [("1", "1.0"), ("2", "2.0"), ("3", "30.0")]


def test_half_a_row_that_a_power_cut_left_is_dropped(tmp_path):
    first = CSVLogger(run=run_in(tmp_path))
    for step in (1, 2, 13):
        first.log_metrics({"train/loss": float(step)}, step=step)
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text().replace("13,13.0\n", "1").replace("13,13.0\r\n", "1"))
    truncate_metrics(path, 2)
    assert [r["step"] for r in rows(tmp_path)] == ["1", "2"]


@pytest.fixture
def silent():
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def answering():
    """A server that is_reachable, if only that it does not know the page."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_a_named_mode_stays(mode):
    assert resolve_mode(mode) == mode


def test_without_a_key_it_is_offline(no_account):
    assert resolve_mode("auto") == "offline"


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_with_a_key_it_depends_on_the_server(no_account, monkeypatch, tmp_path, answering, silent, where):
    if where == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {'0' * 40}\n")
    settings = SimpleNamespace(base_url=answering)
    monkeypatch.setattr("wandb.setup", lambda: SimpleNamespace(settings=settings))
    assert resolve_mode("auto") == "online"
    for settings.base_url in ("http://127.0.0.1:9", silent):
        begun = time.monotonic()
        assert resolve_mode("auto") == "offline"
        assert time.monotonic() - begun < 4
    settings.base_url = answering.replace("127.0.0.1", "localhost")
    assert resolve_mode("auto") == ("online" if where == "environment" else "offline"), "a key is for one server"


def test_tensorboard_that_is_not_installed_is_a_line_of_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install .* -e "\.\[tensorboard\]"'):
        TensorBoard(run=run_in(tmp_path))


def test_tensorboard_lies_in_the_run_directory(tmp_path):
    pytest.importorskip("tensorboard")
    logger = TensorBoard(run=run_in(tmp_path))
    logger.log_metrics({"train/loss": 2.0}, step=1)
    logger.save()
    logger.finalize("success")
    assert list((tmp_path / "tensorboard").iterdir()), "and in no folder below"
    assert [p.name for p in tmp_path.iterdir()] == ["tensorboard"]
