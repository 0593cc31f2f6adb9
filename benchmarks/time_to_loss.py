"""Time to nanoGPT's CPU result: `python -m benchmarks.time_to_loss --nanogpt ../nanoGPT`.

Trains the default configuration and, if a checkout of nanoGPT is given, nanoGPT's own CPU configuration, alternately on
the same machine, and writes the results as JSON to benchmarks/results/. Both are timed by their training steps alone
(without validation, sampling and start-up) and as whole programs.
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

GOAL = 1.88  # nanoGPT's README: the validation loss of its CPU configuration
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
    }


def run_nanogpt(checkout: Path, folder: Path) -> dict[str, Any]:
    """Run nanoGPT's CPU configuration once. Its losses are its own estimates from 20 random batches."""
    start = time.perf_counter()
    command = [sys.executable, "train.py", *NANOGPT, f"--out_dir={folder / 'nanogpt'}"]
    done = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    steps = {int(n): float(ms) for n, ms in re.findall(r"iter (\d+): loss .*, time ([\d.]+)ms", done.stdout)}
    losses = [float(loss) for loss in re.findall(r"val loss ([\d.]+)", done.stdout)]
    plain = [ms for n, ms in steps.items() if n % 250]  # every 250th step includes an evaluation
    step_ms = statistics.median(plain)
    count = len(steps) - 1  # steps 0 to 2000
    train_s = (sum(plain) + step_ms * (len(steps) - len(plain))) / 1000
    return {
        "val_loss_estimate": min(losses),
        "steps": count,
        "train_s": train_s,
        "step_ms": step_ms,
        "whole_program_s": seconds,
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
            print("miniGPT", ours[-1], flush=True)
            if arguments.nanogpt:
                theirs.append(run_nanogpt(Path(arguments.nanogpt).absolute(), Path(folder)))
                print("nanoGPT", theirs[-1], flush=True)
    report = {"options": arguments.options, "minigpt": medians(ours), "minigpt_runs": ours}
    if theirs:
        report |= {"nanogpt": medians(theirs), "nanogpt_runs": theirs}
        for key in ("train_s", "whole_program_s"):
            ratio = statistics.median(n[key] / m[key] for m, n in zip(ours, theirs, strict=True))
            report[f"times_faster_{key}"] = ratio
            print(f"{key}: {ratio:.2f} times as fast as nanoGPT")
    write_results("time_to_loss", report)


if __name__ == "__main__":
    main()
