"""Several at once: first runs that download the same text, and sweeps in which a job fails."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.trial import TINY, TRAIN, Process, Result, Row

TEXT = ("To be, or not to be, that is the question.\n" * 4000).encode()


class SlowText(http.server.BaseHTTPRequestHandler):
    """Sends a text in a second, and counts how often it was asked."""

    def do_GET(self) -> None:
        self.server.hits += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        for start in range(0, len(TEXT), len(TEXT) // 10):
            self.wfile.write(TEXT[start : start + len(TEXT) // 10])
            time.sleep(0.1)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def serve(handler: type[http.server.BaseHTTPRequestHandler]) -> http.server.ThreadingHTTPServer:
    """A server on this machine; `hits` counts what it was asked."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.hits = 0  # type: ignore[attr-defined]
    server.handle_error = lambda *args: None  # a client that leaves early is no news
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def fetch_as_nanogpt_does(url: str, path: Path) -> None:
    """Download unless the file is there; then read it."""
    if not path.exists():
        with urllib.request.urlopen(url) as response, path.open("wb") as file:
            while piece := response.read(1 << 12):
                file.write(piece)
    os._exit(0 if path.read_bytes() == TEXT else 3)


def first_runs(folder: Path, controls: int) -> Iterator[Row]:
    """Ten first runs in the same second, which need the same text."""
    server = serve(SlowText)
    url = f"http://127.0.0.1:{server.server_port}/play.txt"
    data = ["data=text", "data.path=play.txt", f"+data.url={url}", f"+data.sha256={hashlib.sha256(TEXT).hexdigest()}"]
    tiny = [o for o in TINY if o != "debug=fast"] + "model.num_layers=2 model.num_heads=2 model.dim=32".split()
    tiny += ["model.block_size=32", "logger=none", "trainer.max_steps=4", f"paths.log_dir={folder / 'logs'}", *data]
    processes = [Process(tiny, folder) for _ in range(10)]
    ended = [process.wait() for process in processes]
    fine = sum(e.code == 0 for e in ended)
    directories = len(list((folder / "logs/runs").iterdir()))
    good = fine if server.hits == 1 and directories == 10 else 0
    wrong = next((e.errors[-200:] for e in ended if e.code), "")
    ours = Result(good, 10, wrong or f"{server.hits} download, {directories} run directories")
    stock = None
    if controls:
        server.hits = 0
        children = []
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                fetch_as_nanogpt_does(url, folder / "stock.txt")
            children.append(pid)
            time.sleep(0.05)
        whole = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)
        stock = Result(whole if server.hits == 1 else 0, 10, f"{server.hits} downloads, {10 - whole} read half a text")
    server.shutdown()
    fault = "ten first runs in the same second: one download, ten directories, all complete"
    yield Row(fault, ours, "download unless there, as nanoGPT does", stock)


STOCK_SWEEP = """
import hydra
from omegaconf import OmegaConf
@hydra.main(version_base="1.3", config_path=None)
def main(config):
    if config.job % 2:
        raise RuntimeError("this job fails")
    open("done", "w").write(OmegaConf.to_yaml(config))
main()
"""


def sweep(folder: Path, controls: int) -> Iterator[Row]:
    """A sweep in which two jobs of four fail."""
    environment = os.environ | {"MINIGPT_DATA_DIR": "data", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TRAIN), "-m", *TINY, "trainer.max_steps=4", "model.block_size=480"]
    command += ["data.num_chars=1000,20000,1001,30000", f"paths.log_dir={folder / 'logs'}"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    rows = json.loads(next((folder / "logs").rglob("ranking.json")).read_text())
    found = [(row["job"], row["status"]) for row in rows]
    failed = sum(status == "failed" and f"job {job} failed" in done.stdout for job, status in found)
    ok = done.returncode == 1 and sorted(found[:2]) == [(1, "completed"), (3, "completed")]
    ours = Result(failed if ok else 0, 2, f"exit code {done.returncode}, {found}")
    stock = None
    if controls:
        (folder / "sweep.py").write_text(STOCK_SWEEP)
        command = [sys.executable, "sweep.py", "-m", "+job=1,2,3,4"]
        plain = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        told = sum(f"+job={job}']" in plain.stdout + plain.stderr for job in (1, 3))
        stock = Result(told, 2, f"exit code {plain.returncode}, {told} of 2 failures told")
    fault = "sweep in which two jobs of four fail: the others run, every failure is told, exit code 1"
    yield Row(fault, ours, "Hydra's own launcher", stock)
