"""A run with an early and a late checkpoint, and the playground's server for it, in a thread of this process."""

import http.client
import json
import threading
from contextlib import contextmanager

import pytest
import torch
from tests.inference.checkpoints import save_checkpoint

from minigpt.data.tokenizer import CharTokenizer
from minigpt.playground.run_checkpoints import RunCheckpoints
from minigpt.playground.server import listen, make_server

TEXT = "To be, or not to be:\nthat is the question.\n"


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The directory of a run with the checkpoints of steps 3 and 7, the later one also by the name of the best."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: {}\n")
    for seed, name in enumerate(("step_3.ckpt", "step_7.ckpt")):
        torch.manual_seed(seed)
        about = {"example_prompt": "To be"}
        save_checkpoint(folder / "checkpoints" / name, CharTokenizer(TEXT), text=about)
    (folder / "checkpoints" / "best.ckpt").hardlink_to(folder / "checkpoints" / "step_7.ckpt")
    return folder


@pytest.fixture(scope="session")
def checkpoints(run):
    """Its checkpoints, on the CPU."""
    return RunCheckpoints(str(run), "runs", "cpu")


class Client:
    """Asks a server as the page does."""

    def __init__(self, port):
        self.port = port
        self.host = f"127.0.0.1:{port}"

    def ask(self, path, body=None, *, headers=None, method=None, timeout=30):
        """The status, the headers and the body of a response; JSON is read."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        own = {"Content-Type": "application/json"} if data is not None else {}
        try:
            connection.request(method or ("GET" if data is None else "POST"), path, data, own | (headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = response.getheader("content-type") == "application/json"
        return response.status, dict(response.getheaders()), json.loads(content) if is_json else content.decode()

    def generate(self, **options):
        """The steps of a generation."""
        asked = {"checkpoint": "step_7.ckpt", "prompt": "To", "tokens": [], "temperature": 1.0}
        status, _, lines = self.ask("/api/generate", asked | {"max_new_tokens": 8, "seed": 1} | options)
        assert status == 200, lines
        return [json.loads(line) for line in lines.splitlines()]


@contextmanager
def running(checkpoints, host="127.0.0.1"):
    """The playground's server on a free port, until the context ends."""
    listener = listen("127.0.0.1", 0)
    server = make_server(checkpoints, host)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Client(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def client(checkpoints):
    """A client of a server that runs for all tests."""
    with running(checkpoints) as client:
        yield client
