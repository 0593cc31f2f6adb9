"""What `make` installs, and from where: run with a stand-in for uv that notes what it is asked for."""

import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAND_IN = """#!/bin/sh
echo "$@" >> uv.log
if [ "$1" = venv ]; then mkdir -p .venv/bin; ln -s {python} .venv/bin/python; fi
"""


class Index(BaseHTTPRequestHandler):
    """A package index that answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def index():
    """The address of an index on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def make(tmp_path, index):
    """Run make in a fresh checkout; returns what was asked of uv since the last time, a line for each command."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").write_text(STAND_IN.format(python=sys.executable))
    (tools / "uname").write_text("#!/bin/sh\necho Linux\n")
    log = tmp_path / "uv.log"

    def run(*arguments: str, gpu: bool = False) -> list[str]:
        log.unlink(missing_ok=True)
        (tools / "nvidia-smi").unlink(missing_ok=True)
        if gpu:
            (tools / "nvidia-smi").write_text("#!/bin/sh\n")
        for tool in tools.iterdir():
            tool.chmod(0o755)
        command = ["make", "--silent", f"PYTHON={sys.executable}", f"CPU_INDEX={index}", *arguments]
        environment = {"PATH": f"{tools}:/usr/bin:/bin"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert ("No NVIDIA GPU" in done.stdout) == any(index in line for line in log.read_text().splitlines())
        return log.read_text().splitlines()

    return run


def test_training_installs_nothing_of_the_tests(make):
    installed = make("install")
    assert installed[0].startswith("venv") and "torch==" in installed[1] and installed[2].endswith("-e .")
    assert len(installed) == 3
    (tests,) = make("setup")
    assert tests.endswith("-c constraints.txt -e .[test,tensorboard]")


@pytest.mark.skipif(any(Path("/dev").glob("nvidia*")), reason="this machine has an NVIDIA GPU")
def test_a_machine_without_a_gpu_takes_the_cpu_build(make, index):
    assert f"--no-deps --index-url {index} torch==" in make("install")[1]


@pytest.mark.parametrize(
    ("arguments", "gpu", "option"),
    [
        ((), True, ""),
        (("CPU_INDEX=http://127.0.0.1:9",), False, ""),
        (("TORCH_INDEX_URL=https://example.org/simple",), False, "--no-deps --index-url https://example.org/simple "),
    ],
    ids=["a GPU", "the index does not answer", "an index of one's own"],
)
def test_otherwise_torch_comes_from_the_usual_index_or_the_named_one(make, arguments, gpu, option):
    assert make("install", *arguments, gpu=gpu)[1].split(" ", 5)[-1].startswith(f"{option}torch==")
