"""A W&B server that refuses connections or does not answer."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.harness import BASELINE, TINY, Process, run
from benchmarks.faults.results import Result, Row

KEY = "0123456789abcdef0123456789abcdef01234567"


class SilentServer:
    """Accepts connections and never answers, except for an optional answer to the first request."""

    def __init__(self, first_answer: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.first_answer, self.connections = first_answer, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Accept connections and keep them open."""
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            if self.first_answer:
                connection.recv(1 << 12)
                connection.sendall(self.first_answer)
                connection.close()
                self.first_answer = b""
            else:
                self.connections.append(connection)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"


def wandb_down(folder: Path, baselines: int) -> Iterator[Row]:
    """Seconds that a run takes longer if W&B refuses, is silent, or falls silent after the first answer."""
    greeting = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    options = [*TINY, "logger=wandb", "trainer.max_steps=10"]
    online = {"WANDB_MODE": None, "WANDB_API_KEY": KEY}
    offline = run([*options, f"paths.log_dir={folder / 'offline'}"], folder)
    assert offline.exit_code == 0, offline.stderr
    silent, falls_silent = SilentServer(), SilentServer(greeting)
    urls = {"refused": "http://127.0.0.1:9", "silent": silent.url, "falls-silent": falls_silent.url}
    failures, slowest, good = [], 0.0, 0
    for name, url in urls.items():
        done = run([*options, f"paths.log_dir={folder / name}"], folder, environment=online | {"WANDB_BASE_URL": url})
        added = done.seconds - offline.seconds
        slowest = max(slowest, added)
        files = list((folder / name).rglob("run-*.wandb"))
        if done.exit_code == 0 and added <= 5 and files and files[0].stat().st_size > 1000:
            good += 1
        else:
            failures.append(f"{name}: {added:.1f} s added, {len(files)} files, {done}")
    note = "; ".join(failures) or f"at most {slowest:.1f} s added, everything in the offline files"
    baseline = None
    if baselines:
        environment = online | {"WANDB_BASE_URL": silent.url}
        options = [f"folder={folder / 'baseline'}", "max_steps=10", "wandb=1"]
        done = Process(options, folder, script=BASELINE, environment=environment).wait(25)
        killed = " (killed after a timeout)" if done.exit_code == -9 else ""
        ok = done.exit_code == 0 and done.seconds - offline.seconds <= 5
        baseline = Result(int(ok), 1, f"exit code {done.exit_code} after {done.seconds:.0f} s{killed}")
    fault = "W&B refused, silent, or silent after one answer: at most 5 s added, the run completes, nothing lost"
    yield Row(fault, Result(good, len(urls), note), "Lightning's WandbLogger, silent server", baseline)
