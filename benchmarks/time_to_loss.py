"""Time to nanoGPT's CPU result: `python -m benchmarks.time_to_loss --nanogpt ../nanoGPT`.

Trains the default configuration and, if a checkout of nanoGPT is given, nanoGPT's own CPU configuration, alternately on
the same machine, and writes the results as JSON to benchmarks/results/. Both are timed by their training steps alone
(without validation, sampling and start-up) and as whole programs. nanoGPT computes in float32 on a CPU, miniGPT in the
precision that is fast there. The curves of all runs are in the results; `make curve` draws docs/curve.png from them.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import medians, train, write_results

GOAL = 1.88  # the validation loss of nanoGPT's CPU configuration, by its README: https://github.com/karpathy/nanoGPT
NANOGPT = """
    config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64
    --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0
""".split()


def run_minigpt(folder: Path, options: list[str]) -> dict[str, Any]:
    """Run `src/train.py` once."""
    run = train(folder, *options)
    step_s = run["train_s"] / run["steps"]
    reached = [int(r["step"]) for r in run["records"] if r["val/loss"] and float(r["val/loss"]) <= GOAL]
    return {
        "val_loss": run["val_loss_best"],
        "parameters": run["parameters"],
        "steps": run["steps"],
        "train_s": run["train_s"],
        "step_ms": 1000 * step_s,
        "whole_program_s": run["whole_program_s"],
        "train_s_to_goal": reached[0] * step_s if reached else None,
        "precision": run["precision"],
        "curve": loss_curve(run["records"]),
    }


def loss_curve(records: list[dict[str, str]]) -> list[dict[str, float | None]]:
    """The losses of a run's records over its seconds of training; None where a record has no such loss."""
    seconds, last, curve = 0.0, 0, []
    for record in records:
        step = int(record["step"])
        if step_ms := record.get("throughput/step_ms"):
            seconds, last = seconds + (step - last) * float(step_ms) / 1000, step
        losses = {name: float(record[name]) if record.get(name) else None for name in ("train/loss", "val/loss")}
        curve.append({"step": step, "train_s": seconds, **losses})
    return curve


def run_nanogpt(checkout: Path, folder: Path) -> dict[str, Any]:
    """Run nanoGPT's CPU configuration once, in float32. Its losses are its own estimates from 20 random batches."""
    start = time.perf_counter()
    command = [sys.executable, "train.py", *NANOGPT, f"--out_dir={folder / 'nanogpt'}"]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    return read_nanogpt(done.stdout) | {"whole_program_s": time.perf_counter() - start, "precision": "32-true"}


def read_nanogpt(output: str) -> dict[str, Any]:
    """The losses and times that nanoGPT printed."""
    times = {int(n): float(ms) for n, ms in re.findall(r"iter (\d+): loss .*, time ([\d.]+)ms", output)}
    losses = {int(n): float(loss) for n, loss in re.findall(r"step (\d+): train loss .*, val loss ([\d.]+)", output)}
    plain = [ms for n, ms in times.items() if n % 250]  # every 250th step includes an evaluation
    step_ms = statistics.median(plain)
    step_s = {n: (ms if n % 250 else step_ms) / 1000 for n, ms in times.items()}
    return {
        "val_loss_estimate": min(losses.values()),
        "steps": len(times) - 1,  # steps 0 to 2000
        "train_s": sum(step_s.values()),
        "step_ms": step_ms,
        "curve": [
            {"step": step, "train_s": sum(s for n, s in step_s.items() if n < step), "val/loss": loss}
            for step, loss in losses.items()
        ],
    }


def main() -> None:
    """Run both alternately, print the medians and write all results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--nanogpt", default="", help="a checkout of karpathy/nanoGPT with its Shakespeare data prepared"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("options", nargs="*", help="options for src/train.py")
    arguments = parser.parse_args()
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.repeats):
            ours.append(run_minigpt(Path(folder), arguments.options))
            print("miniGPT", medians(ours[-1:]), flush=True)
            if arguments.nanogpt:
                theirs.append(run_nanogpt(Path(arguments.nanogpt).absolute(), Path(folder)))
                print("nanoGPT", medians(theirs[-1:]), flush=True)
    report = {"options": arguments.options, "minigpt": medians(ours), "minigpt_runs": ours}
    if theirs:
        report |= {"nanogpt": medians(theirs), "nanogpt_runs": theirs}
        for key in ("train_s", "whole_program_s"):
            ratio = statistics.median(n[key] / m[key] for m, n in zip(ours, theirs, strict=True))
            report[f"times_faster_{key}"] = ratio
            print(
                f"{key}: {ratio:.2f} times as fast as nanoGPT, {ours[0]['precision']} against {theirs[0]['precision']}"
            )
    write_results("time_to_loss", report)


if __name__ == "__main__":
    main()
