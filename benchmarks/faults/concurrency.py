"""Several runs at once: first runs that download the same text, and a multirun with failing jobs."""

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

from benchmarks.faults.harness import TINY, TINY_MODEL, TRAIN, Process, subprocess_environment
from benchmarks.faults.results import Result, Row

TEXT = ("To be, or not to be, that is the question.\n" * 4000).encode()


class SlowText(http.server.BaseHTTPRequestHandler):
    """Sends a text within a second and counts the requests."""

    def do_GET(self) -> None:
        self.server.hits += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        for start in range(0, len(TEXT), len(TEXT) // 10):
            self.wfile.write(TEXT[start : start + len(TEXT) // 10])
            time.sleep(0.1)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


def serve(handler: type[http.server.BaseHTTPRequestHandler]) -> http.server.ThreadingHTTPServer:
    """Start a server on this machine whose attribute `hits` counts the requests."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.hits = 0  # type: ignore[attr-defined]
    server.handle_error = lambda *args: None  # clients may disconnect early
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def first_runs(folder: Path, baselines: int) -> Iterator[Row]:
    """Ten first runs, started in the same second, that need the same text."""
    server = serve(SlowText)
    url = f"http://127.0.0.1:{server.server_port}/play.txt"
    options = [o for o in TINY if o != "debug=fast"] + TINY_MODEL
    options += ["logger=csv", "trainer.max_steps=4", f"paths.log_dir={folder / 'logs'}"]
    options += [f"data.url={url}", f"data.sha256={hashlib.sha256(TEXT).hexdigest()}"]
    processes = [Process(options, folder) for _ in range(10)]
    done = [process.wait() for process in processes]
    completed = sum(d.exit_code == 0 for d in done)
    directories = len(list((folder / "logs/runs").iterdir()))
    failure = next((str(d) for d in done if d.exit_code), "")
    note = failure or f"{server.hits} download, {directories} run directories"
    ours = Result(completed if server.hits == 1 and directories == 10 else 0, 10, note)
    baseline = None
    if baselines:
        server.hits = 0
        complete = download_ten_times(url, folder / "baseline.txt")
        note = f"{server.hits} downloads, {10 - complete} read an incomplete text"
        baseline = Result(complete if server.hits == 1 else 0, 10, note)
    server.shutdown()
    fault = "ten first runs in the same second: one download, ten directories, all completed"
    yield Row(fault, ours, "download if missing, as nanoGPT does", baseline)


def download_ten_times(url: str, path: Path) -> int:
    """Ten processes that download a text if it is missing, then read it; returns how many read all of it."""
    children = []
    for _ in range(10):
        pid = os.fork()
        if pid == 0:
            if not path.exists():
                with urllib.request.urlopen(url) as response, path.open("wb") as file:
                    while chunk := response.read(1 << 12):
                        file.write(chunk)
            os._exit(0 if path.read_bytes() == TEXT else 3)
        children.append(pid)
        time.sleep(0.05)
    return sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 for pid in children)


BASELINE_MULTIRUN = """
import hydra
from omegaconf import OmegaConf
@hydra.main(version_base="1.3", config_path=None)
def main(config):
    if config.job % 2:
        raise RuntimeError("this job fails")
    open("done", "w").write(OmegaConf.to_yaml(config))
main()
"""


def multirun(folder: Path, baselines: int) -> Iterator[Row]:
    """A multirun in which two of four jobs fail."""
    command = [sys.executable, str(TRAIN), "-m", *TINY, "trainer.max_steps=4", "model.block_size=480"]
    command += ["data.num_chars=1000,20000,1001,30000", f"paths.log_dir={folder / 'logs'}"]
    environment = subprocess_environment()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    ranking = json.loads(next((folder / "logs").rglob("ranking.json")).read_text())
    found = [(row["job"], row["status"]) for row in ranking]
    reported = sum(status == "failed" and f"job {job} failed" in done.stdout for job, status in found)
    ok = done.returncode == 1 and sorted(found[:2]) == [(1, "completed"), (3, "completed")]
    ours = Result(reported if ok else 0, 2, f"exit code {done.returncode}, {found}")
    baseline = None
    if baselines:
        (folder / "multirun.py").write_text(BASELINE_MULTIRUN)
        command = [sys.executable, "multirun.py", "-m", "+job=1,2,3,4"]
        plain = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        reported = sum(f"+job={job}']" in plain.stdout + plain.stderr for job in (1, 3))
        baseline = Result(reported, 2, f"exit code {plain.returncode}, {reported} of 2 failures reported")
    fault = "multirun in which two of four jobs fail: the others run, every failure is reported, exit code 1"
    yield Row(fault, ours, "Hydra's own launcher", baseline)
