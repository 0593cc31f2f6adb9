"""`make bench-gpu`: miniGPT on a CUDA GPU and the alternatives, measured alternately on the same device.

    time_to_loss    experiment=fast_gpu to nanoGPT's GPU result, against nanoGPT's own training
    steps           tokens per second of nanoGPT's model, text and AdamW, against nanoGPT's own
    overhead        the cost of Lightning, logging, W&B and the progress bar per step of experiment=fast_gpu
    medium          model FLOPs utilization (MFU) of GPT-2's shape: 124 M parameters in a plain loop, and a run
    generation      tokens per second with the key-value cache and without

Everything is compiled except generation. The reference is nanoGPT itself if NANOGPT_DIR names a checkout with its
Shakespeare data prepared, else the plain loop of `benchmarks/plain.py` with nanoGPT's settings. Losses are exact: the
whole validation split, for all models. The time for compiling is reported separately as `warmup_s` and not counted.
`--quick` runs everything within seconds, with tiny models on any device, to test the program itself.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import speed
from benchmarks.gpu_bench import Bench, time_to_goal
from benchmarks.gpu_nanogpt import ITERATION, nanogpt_to_goal, plain_to_goal, run_nanogpt, timed_steps
from benchmarks.report import compose_config, medians, write_results
from rich.console import Console
from rich.table import Table

from minigpt.config.build import build
from minigpt.training.hardware import peak_flops

GOAL = 1.4697  # nanoGPT's README: the validation loss of its GPU configuration
GPT2_VOCAB_SIZE = 50_304  # GPT-2's 50,257, padded to a multiple of 64


def verdict(figure: str, value: float | None, bound: float | None = None, *, is_upper: bool = False) -> dict[str, Any]:
    """A measured value and the bound that it should keep: a lower one, or an upper one."""
    holds = None if value is None or bound is None else value <= bound if is_upper else value >= bound
    return {"figure": figure, "value": value, "bound": bound, "holds": holds}


def measure_time_to_loss(bench: Bench) -> dict[str, Any]:
    """Training seconds to an exact validation loss: experiment=fast_gpu before and after nanoGPT.

    If nanoGPT does not reach it, its whole training counts, so that the ratio is too low rather than too high.
    """
    goal, ours = 10.0 if bench.quick else GOAL, []
    for seed in (1,) if bench.quick else (1, 2):
        run = bench.run("experiment=fast_gpu", f"seed={seed}")
        losses = {int(r["step"]): float(r["val/loss"]) for r in run["records"] if r["val/loss"]}
        other = {name: run[name] for name in ("step_ms", "warmup_s", "parameters", "whole_program_s")}
        ours.append({"seed": seed} | time_to_goal(losses, run["seconds"], goal) | other)
        print(ours[-1], flush=True)
        if seed == 1:
            theirs = plain_to_goal(bench, goal) if bench.nanogpt is None else nanogpt_to_goal(bench, goal)
            print(theirs, flush=True)
    times = theirs["train_s"] / medians(ours)["train_s"] if all(run["reached"] for run in ours) else None
    figure = f"times as fast to {goal} as {theirs['who']}"
    return verdict(figure, times, 5.0) | {"goal": goal, "runs": ours, "theirs": theirs}


def measure_steps(bench: Bench) -> dict[str, Any]:
    """Tokens per second of nanoGPT's GPU configuration: as a run, in the plain loop, and nanoGPT's own."""
    options = ["experiment=nanogpt_gpu", "trainer.max_steps=400", "trainer.val_every_n_steps=400"]
    config, runs = compose_config(*bench.options(*options)), []
    tokens = 1000 * config["data"]["batch_size"] * config["model"]["block_size"]
    for _ in range(bench.repeats):
        run = {"tokens_per_s": tokens / bench.run(*options)["step_ms"]}
        run["plain_tokens_per_s"] = tokens / bench.time_plain_loop(config)["step_ms"]
        run["times_plain"] = run["tokens_per_s"] / run["plain_tokens_per_s"]
        if bench.nanogpt is not None:
            _, output = run_nanogpt(bench, "--max_iters=400", "--eval_interval=100000", "--eval_iters=1")
            pairs = pairwise(timed_steps(output, ITERATION))
            step_s = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)
            run["nanogpt_tokens_per_s"] = tokens / (1000 * step_s)
            run["times_nanogpt"] = run["tokens_per_s"] / run["nanogpt_tokens_per_s"]
        runs.append(run)
        print(run, flush=True)
    found = medians(runs)
    key, who = ("times_plain", "a plain loop") if bench.nanogpt is None else ("times_nanogpt", "nanoGPT")
    return verdict(f"tokens/s relative to {who}", found[key], 1.0) | found | {"runs": runs}


def measure_overhead(bench: Bench) -> dict[str, Any]:
    """Milliseconds per step of experiment=fast_gpu, and of a plain loop with the same components."""
    options = ["experiment=fast_gpu", "trainer.max_steps=400", "trainer.val_every_n_steps=400"]
    config, runs = compose_config(*bench.options(*options)), []
    for _ in range(bench.repeats):
        run, plain = bench.run(*options), bench.time_plain_loop(config)
        found = {"step_ms": run["step_ms"], "plain_step_ms": plain["step_ms"], "plain_host_ms": plain["host_ms"]}
        found["overhead"] = found["step_ms"] / found["plain_step_ms"] - 1
        runs.append(found)
        print(found, flush=True)
    found = medians(runs)
    return verdict("overhead per step", found["overhead"], 0.03, is_upper=True) | found | {"runs": runs}


def measure_medium(bench: Bench) -> dict[str, Any]:
    """MFU of GPT-2's shape: with its vocabulary on random tokens at several batch sizes, and as a run on characters."""
    known = peak_flops(bench.device, bench.precision)
    peak, source = (None, "unknown device") if known is None else known
    config = compose_config(*bench.options("model=medium", "model.tie_head=true", "optimizer=adamw"))
    vocab_size = 100 if bench.quick else GPT2_VOCAB_SIZE
    tokens, loops = np.random.default_rng(1).integers(0, vocab_size, 10**6, dtype=np.uint16), []
    for batch_size in (2, 4) if bench.quick else (8, 16, 32, 64):
        config["data"]["batch_size"] = batch_size
        loop: dict[str, Any] = {"batch_size": batch_size}
        try:
            loop |= bench.time_plain_loop(config, tokens, vocab_size)
            loop["tokens_per_s"] = 1000 * batch_size * config["model"]["block_size"] / loop["step_ms"]
            loop["mfu"] = loop["tokens_per_s"] * loop["flops_per_token"] / peak if peak is not None else None
        except torch.OutOfMemoryError:
            loop["out_of_memory"] = True
        loops.append(loop)
        print(loop, flush=True)
    best = max((loop for loop in loops if "tokens_per_s" in loop), key=lambda loop: loop["tokens_per_s"])
    run = bench.run("model=medium", f"data.batch_size={best['batch_size']}", "trainer.max_steps=60")
    mfus = [float(r["throughput/mfu"]) for r in run["records"] if r.get("throughput/mfu")]
    found = {"peak_flops": peak, "peak": source, "run_mfu": statistics.median(mfus[1:]) if mfus else None}
    found |= {"run_step_ms": run["step_ms"], "run_parameters": run["parameters"], "runs": loops}
    return verdict(f"MFU of {best['parameters']:,} parameters, batch {best['batch_size']}", best["mfu"], 0.55) | found


def measure_generation(bench: Bench) -> dict[str, Any]:
    """Tokens per second of model=small at batch size 1, with the cache and without."""
    torch.manual_seed(1)
    config = compose_config(*bench.options("model=small", "model.zero_init=false"))
    model = build(config["model"])(vocab_size=65).to(bench.device)
    found = speed.measure_generation(model, 40 if bench.quick else 1000, bench.repeats)
    return verdict("times as fast with the cache", found["times"]) | found


BENCHMARKS = {
    "time_to_loss": measure_time_to_loss,
    "steps": measure_steps,
    "overhead": measure_overhead,
    "medium": measure_medium,
    "generation": measure_generation,
}


def device_info(device: torch.device) -> dict[str, Any]:
    """The GPU, its driver and the CUDA version."""
    if device.type != "cuda":
        return {"device": device.type}
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return {
        "device": torch.cuda.get_device_name(device),
        "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda,
    }


def show(results: dict[str, dict[str, Any]], device: str) -> None:
    """Print the table of results."""
    table = Table("benchmark", "figure", "measured", "bound", "", title=f"{device}, torch {torch.__version__}")
    for name, result in results.items():
        shown = ["-" if result[key] is None else f"{result[key]:.3f}" for key in ("value", "bound")]
        holds = {True: "holds", False: "[red]missed", None: ""}[result["holds"]]
        table.add_row(name, result["figure"], *shown, holds)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def main() -> None:
    """Measure, print a table and write JSON; the exit code is 2 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", default="", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--only", nargs="*", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, any device, nothing written")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.quick:
        print("bench-gpu needs a CUDA device, and none was found; --quick runs on any device", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(arguments.nanogpt).absolute() if arguments.nanogpt else None
        bench = Bench(Path(folder), checkout, device, arguments.quick)
        results, info = {}, device_info(device)
        for name in arguments.only or BENCHMARKS:
            results[name] = BENCHMARKS[name](bench)
            if not arguments.quick:  # after each one, since a later one may fail
                write_results("gpu", info | results, merge=True)
    show(results, info["device"])


if __name__ == "__main__":
    main()
