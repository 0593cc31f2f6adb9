"""The command starts a server on a free port, says where, and ends by a signal."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from minigpt.inference.export_formats import export_model
from minigpt.playground import load_server
from minigpt.playground.model_views import predict_next
from minigpt.playground.run_checkpoints import RunCheckpoints
from minigpt.playground.server import NUM_PORTS, has_display, listen, page_url

ROOT = Path(__file__).parents[2]


def test_the_next_free_port_is_taken():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + NUM_PORTS


def test_no_free_port_is_one_line(monkeypatch):
    monkeypatch.setattr("minigpt.playground.server.NUM_PORTS", 1)
    with listen("127.0.0.1", 0) as first, pytest.raises(ValueError, match="are taken: choose another one with port="):
        listen("127.0.0.1", first.getsockname()[1])


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_one_line(host):
    with pytest.raises(ValueError, match=f"cannot listen on host={host} port=8000"):
        listen(host, 8000)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80/"), ("0.0.0.0", "http://127.0.0.1:80/"), ("::1", "http://[::1]:80/")],
)
def test_the_address_is_one_that_a_browser_can_open(host, url):
    assert page_url(host, 80) == url


@pytest.mark.parametrize(
    ("environment", "platform", "expected"),
    [({}, "linux", False), ({"DISPLAY": ":0"}, "linux", True), ({"WAYLAND_DISPLAY": "x"}, "linux", True)]
    + [({}, "darwin", True), ({"DISPLAY": ""}, "linux", False)],
)
def test_a_browser_is_opened_where_there_is_a_display(environment, platform, expected):
    assert has_display(environment, platform) == expected


def test_without_the_web_server_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("minigpt.playground.LIBRARIES", ("no_such_library",))
    with pytest.raises(ValueError, match=r"pip install .*\[playground\]"):
        load_server()


def test_a_checkpoint_that_is_replaced_is_loaded_again(run, tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "last.ckpt").write_bytes((run / "checkpoints" / "step_3.ckpt").read_bytes())
    checkpoints = RunCheckpoints(str(folder / "last.ckpt"), "runs", "cpu")
    before = checkpoints.load("last.ckpt")
    assert checkpoints.load("last.ckpt") is before and checkpoints.files() == {"last.ckpt": "last"}
    (folder / "new.ckpt").write_bytes((run / "checkpoints" / "step_7.ckpt").read_bytes())
    (folder / "new.ckpt").replace(folder / "last.ckpt")
    assert not before.model.head.weight.equal(checkpoints.load("last.ckpt").model.head.weight)
    (folder / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="damaged"):
        checkpoints.load("last.ckpt")


@pytest.mark.parametrize("output", ["model.safetensors", "folder"])
def test_an_exported_model_is_its_only_checkpoint(checkpoints, tmp_path, output):
    loaded = checkpoints.load("step_7.ckpt")
    export_model(loaded, str(tmp_path / output))
    exported = RunCheckpoints(str(tmp_path / output), "runs", "cpu")
    assert exported.files() == {output: output} and exported.first == exported.run_name == output
    assert predict_next(exported.load(output), "To", [], temperature=1.0) == predict_next(
        loaded, "To", [], temperature=1.0
    )


def test_the_command_serves_its_page_until_it_is_interrupted(run):
    command = [sys.executable, ROOT / "src/playground.py", f"run={run}", "port=0", "device=cpu"]
    environment = os.environ | {"DISPLAY": ":99"}  # its output is no terminal, so no browser is opened
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = process.stdout.readline()
        url = line.split()[1]
        with urllib.request.urlopen(url, timeout=20) as response:
            assert b"miniGPT playground" in response.read()
        with socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))):
            process.send_signal(signal.SIGINT)  # with a connection that is open
            assert process.wait(timeout=20) == 130
        assert process.stderr.read() == "" and line.startswith("playground  http://127.0.0.1:")
