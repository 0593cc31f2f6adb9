"""W&B that is not there, or does not answer."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.killed import STOCK
from benchmarks.faults.trial import TINY, Process, Result, Row, run

KEY = "0123456789abcdef0123456789abcdef01234567"


class Silent:
    """A server that takes connections and never says a word; with an `answer`, it answers that to the first request."""

    def __init__(self, answer: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.answer, self.kept = answer, []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Keep every connection open."""
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            if self.answer:
                connection.recv(1 << 12)
                connection.sendall(self.answer)
                connection.close()
                self.answer = b""
            else:
                self.kept.append(connection)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"


def wandb_down(folder: Path, controls: int) -> Iterator[Row]:
    """Seconds that a run takes longer when W&B is refused, silent, or falls silent after the first answer."""
    greeting = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    options = [*TINY, "logger=wandb", "trainer.max_steps=10"]
    away = {"WANDB_MODE": None, "WANDB_API_KEY": KEY}
    base = run([*options, f"paths.log_dir={folder / 'offline'}"], folder)
    assert base.code == 0, base.errors
    silent, turning = Silent(), Silent(greeting)
    cases = {"refused": "http://127.0.0.1:9", "silent": silent.url, "falls silent": turning.url}
    told, slowest, good = [], 0.0, 0
    for name, url in cases.items():
        place = folder / name.replace(" ", "-")
        ended = run([*options, f"paths.log_dir={place}"], folder, environment=away | {"WANDB_BASE_URL": url})
        added = ended.seconds - base.seconds
        slowest = max(slowest, added)
        kept = list(place.rglob("run-*.wandb"))
        if ended.code == 0 and added <= 5 and kept and (kept[0].stat().st_size > 1000):
            good += 1
        else:
            told.append(
                f"{name}: exit code {ended.code}, {added:.1f} s added, {len(kept)} files, {ended.errors[-200:]}"
            )
    ours = Result(
        good, len(cases), "; ".join(told) or f"at most {slowest:.1f} s added, everything in the offline files"
    )
    stock = None
    if controls:
        environment = away | {"WANDB_BASE_URL": silent.url}
        process = Process(
            [f"folder={folder / 'stock'}", "max_steps=10", "wandb=1"], folder, script=STOCK, environment=environment
        )
        ended = process.wait(25)
        note = f"exit code {ended.code} after {ended.seconds:.0f} s" + (" (stopped by us)" if ended.code == -9 else "")
        stock = Result(int(ended.code == 0 and ended.seconds - base.seconds <= 5), 1, note)
    fault = "W&B refused, silent, or silent after a first answer: at most 5 s added, the run completes, nothing lost"
    yield Row(fault, ours, "Lightning's WandbLogger, silent server", stock)
