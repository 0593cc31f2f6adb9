"""`make bench-paths`: what miniGPT chooses for this machine against plain float32, alone and beside two busy processes.

Training (the default run), evaluation (model=nano) and generation (model=small, batch size 1), each in a process of its
own, with all instructions of the processor and limited to AVX2. `precision=auto` must not be slower than
`precision=32-true`, and two busy processes on two cores must not make it more than three times as slow.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.report import compose_config, train, write_results

from minigpt.config.build import build
from minigpt.data.loaders import ValLoader
from minigpt.devices import resolve_precision
from minigpt.inference.precision import float16_matvec, inference_precision
from minigpt.inference.sampling import generate
from minigpt.inference.scoring import evaluate
from minigpt.model.objectives import NextToken
from minigpt.startup import limit_spinning

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
BUSY = "while True: pass"
TOKENS, BATCHES, STEPS = 150, 4, 40


def train_step(folder: Path, precision: str) -> float:
    """Mean seconds per step of the default run, by its own figures, without the first ten steps."""
    options = ["logger=csv", "callbacks.samples=null", f"precision={precision}", f"trainer.max_steps={STEPS}"]
    run = train(folder, *options, f"trainer.val_every_n_steps={STEPS}")
    windows = [float(r["throughput/step_ms"]) for r in run["records"] if r["throughput/step_ms"]]
    return statistics.fmean(windows[1:]) / 1000


def in_child(task: str, precision: str) -> float:
    """Seconds per token or batch of `evaluation` or `generation` in a new process."""
    command = [sys.executable, "-m", "benchmarks.fast_paths", "--child", task, precision]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def child(task: str, precision: str) -> None:
    """What the new process does: print the median seconds per token or batch."""
    torch.manual_seed(1)
    size = "small" if task == "generation" else "nano"
    model = build(compose_config(f"model={size}", "model.zero_init=false")["model"])(vocab_size=65).eval()
    chosen = resolve_precision(precision, "cpu")
    matvec = float16_matvec(model) if precision == "auto" else nullcontext()
    seconds, begin = [], time.perf_counter()
    with inference_precision(chosen, model), matvec:
        for _ in generate_tokens(model) if task == "generation" else score_batches(model, chosen):
            seconds.append(time.perf_counter() - begin)
            begin = time.perf_counter()
    print(statistics.fmean(seconds[len(seconds) // 5 :]))


def generate_tokens(model: torch.nn.Module) -> Iterator[object]:
    """Sample tokens one by one."""
    return generate(model, torch.zeros(1, 8, dtype=torch.long), max_new_tokens=TOKENS)


def score_batches(model: torch.nn.Module, precision: str) -> Iterator[object]:
    """Score batches of random tokens, 16,384 each."""
    tokens = torch.randint(65, (16_385,)).numpy()
    for _ in range(BATCHES + 1):
        yield evaluate(model, NextToken(), ValLoader(tokens, block_size=64, batch_size=256), precision)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep `count` processes busy meanwhile."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(name: str, run: Callable[[str], float], limits: dict[str, str], repeats: int) -> dict[str, Any]:
    """One row: the three measurements in turn, and their ratios."""
    found: dict[str, list[float]] = {"auto_ms": [], "float32_ms": [], "busy_ms": []}
    plan = (("float32_ms", "32-true", 0), ("auto_ms", "auto", 0), ("busy_ms", "auto", 2))
    with patch.dict(os.environ, limits):
        for _ in range(repeats):
            for key, precision, beside in plan:
                with busy(beside):
                    found[key].append(1000 * run(precision))
    row: dict[str, Any] = {"task": name, "instructions": "AVX2 at most" if limits else "all of the processor"}
    row["capability"] = torch.backends.cpu.get_cpu_capability()
    row |= {key: statistics.median(values) for key, values in found.items()} | {"runs": found}
    row |= {"times_float32": row["float32_ms"] / row["auto_ms"], "times_quiet": row["busy_ms"] / row["auto_ms"]}
    print({k: v for k, v in row.items() if k != "runs"}, flush=True)
    return row


def main() -> None:
    """Measure all rows, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--child", nargs=2, metavar=("TASK", "PRECISION"), help="measure one task in this process")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    limit_spinning()  # inherited by all processes that are measured, as if they were commands
    with tempfile.TemporaryDirectory() as name:
        tasks = {
            "training": partial(train_step, Path(name)),
            "evaluation": partial(in_child, "evaluation"),
            "generation": partial(in_child, "generation"),
        }
        sets = [{}] if torch.backends.cpu.get_cpu_capability() == "AVX2" else [{}, AVX2]
        rows = [
            measure(task, run, limits, arguments.repeats)
            for limits, (task, run) in itertools.product(sets, tasks.items())
        ]
    write_results("fast_paths", {"rows": rows})


if __name__ == "__main__":
    main()
