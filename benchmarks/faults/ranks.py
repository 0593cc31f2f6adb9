"""One of two processes of a distributed run that dies or hangs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.harness import BASELINE, TINY, TRAIN, subprocess_environment
from benchmarks.faults.results import Result, Row
from benchmarks.faults.stops import LONG, LONG_BASELINE
from benchmarks.faults.system import descendants, environment_of, is_alive

CASES = [
    ("second", signal.SIGKILL),
    ("second", signal.SIGSTOP),
    ("first", signal.SIGKILL),
    ("first", signal.SIGSTOP),
]


def ranks(folder: Path, baselines: int) -> Iterator[Row]:
    """One of two processes dies or hangs: the other one exits, and no process is left."""
    failures, slowest, good = [], 0.0, 0
    for victim, number in CASES:
        run_dir = folder / f"rank-{victim}-{number}"
        command = [sys.executable, str(TRAIN), *TINY, *LONG, "trainer.devices=2", "trainer.timeout_s=5"]
        command += [f"paths.run_dir={run_dir}"]
        left, code, seconds = stop_rank(command, folder, run_dir / "metrics.csv", victim, number)
        slowest = max(slowest, seconds)
        if left or code == 0 or seconds > 40:
            failures.append(f"{victim} {number}: {left} left, exit code {code}, {seconds:.0f} s")
        else:
            good += 1
    note = f"timeout 5 s; slowest exit after {slowest:.0f} s, 0 processes left"
    baseline = None
    if baselines:
        place = folder / "baseline-rank"
        command = [sys.executable, str(BASELINE), f"folder={place}", *LONG_BASELINE, "devices=2", "timeout_s=5"]
        left, code, _ = stop_rank(command, folder, place / "csv/metrics.csv", "second", signal.SIGSTOP)
        baseline = Result(int(not left), 1, f"{left} left, exit code {code}")
    fault = "one of two processes dies or hangs: the other exits, no process is left"
    yield Row(fault, Result(good, len(CASES), "; ".join(failures) or note), "Lightning, one hangs", baseline)


def stop_rank(command: list[str], folder: Path, metrics: Path, victim: str, number: int) -> tuple[int, int, float]:
    """Send a signal to one of two processes; returns (processes left, exit code, seconds to the exit)."""
    process = subprocess.Popen(command, cwd=folder, env=subprocess_environment(), stdout=-3, stderr=-3)
    while not metrics.is_file() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    family = [process.pid, *descendants(process.pid)]
    second = [p for p in family[1:] if "LOCAL_RANK=1" in environment_of(p)]
    if process.poll() is not None or not second:
        raise RuntimeError("the run did not start with two processes")
    target = process.pid if victim == "first" else second[0]
    os.kill(target, number)
    start = time.monotonic()
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        code = 0
    seconds = time.monotonic() - start
    time.sleep(1.0)
    left = [p for p in family if p != process.pid and is_alive(p)]
    for pid in [*left, *([process.pid] if process.poll() is None else [])]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return len(left) + (code == 0), code, seconds
