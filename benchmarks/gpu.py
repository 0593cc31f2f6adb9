"""`make bench-gpu`: miniGPT on a CUDA GPU, beside what one would have instead, in turn on the same device.

    time_to_loss    experiment=fast_gpu to nanoGPT's GPU result, beside nanoGPT's own training
    steps           tokens per second of nanoGPT's model, text and AdamW, beside nanoGPT's own
    overhead        what Lightning, logging, W&B and the progress bar add to a step of experiment=fast_gpu
    medium          how much of the device's peak GPT-2's shape reaches: 124 M in a bare loop, and a run on characters
    generation      tokens per second with the key-value cache and without

All is compiled, but the models that generate. The measure is nanoGPT itself where NANOGPT_DIR names a checkout whose
Shakespeare data is prepared, else the plain loop of `benchmarks/plain.py` with nanoGPT's settings. Losses are exact:
the whole validation split, whoever trained. A compiler's work is reported apart as `warmup_s` and counts for nobody.
`--quick` does all of it in seconds with tiny models, on any device, to see that it works; its figures mean nothing.
"""

import argparse
import gc
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import speed
from benchmarks.plain import bare_run
from benchmarks.report import composed, middle, train, write
from rich.console import Console
from rich.table import Table
from torch import nn

from minigpt.config.build import build
from minigpt.data.streams import ValidationStream
from minigpt.inference.precision import resolve_precision
from minigpt.inference.scoring import evaluate
from minigpt.model.gpt import count_parameters, flops_per_token
from minigpt.model.objectives import NextToken
from minigpt.training.hardware import peak_flops

GOAL = 1.4697  # nanoGPT's README: the validation loss of its GPU configuration
GPT2_VOCABULARY = 50_304  # GPT-2's 50,257, filled up to a multiple of 64
WINDOW, WINDOWS = 10, {False: 20, True: 2}  # steps between two looks at the device, and how many of those
TINY = """
    data=pocket data.num_chars=20000 data.batch_size=4 model.num_layers=1 model.num_heads=2 model.dim=32
    model.block_size=32 trainer.max_steps=6 trainer.log_every_n_steps=3 trainer.val_every_n_steps=3 logger=none
    callbacks.samples=null
""".split()
TINY_NANOGPT = """
    --n_layer=1 --n_head=2 --n_embd=32 --block_size=32 --batch_size=4 --max_iters=40 --eval_interval=20 --log_interval=5
    --eval_iters=1
""".split()
# nanoGPT overwrites its checkpoint: this keeps the weights of each, so that their exact loss can be taken afterwards.
NANOGPT = """
import runpy, sys, torch
save = torch.save
def keep(checkpoint, path):
    weights = {name.removeprefix("_orig_mod."): weight for name, weight in checkpoint["model"].items()}
    save({"model": weights, "model_args": checkpoint["model_args"]}, f"{path}.{checkpoint['iter_num']}")
torch.save = keep
runpy.run_path("train.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Bench:
    """Where and with what is measured."""

    folder: Path
    nanogpt: Path | None
    device: torch.device
    quick: bool

    @property
    def repeats(self) -> int:
        """How often each is measured in turn."""
        return 1 if self.quick else 3

    @property
    def precision(self) -> str:
        """What precision=auto is here."""
        return resolve_precision("auto", self.device.type)

    def options(self, *options: str) -> list[str]:
        """Options of src/train.py; for a quick run those of a tiny one."""
        if not self.quick:
            return [*options, "compile=true"]
        return [*options, *TINY, f"paths.data_dir={self.folder}", f"compile={self.device.type == 'cuda'}"]

    def run(self, *options: str) -> dict[str, Any]:
        """One run of src/train.py, with its pace."""
        release()
        run = train(self.folder, *self.options(*options), inside=self.quick)
        return run | pace(run["rows"])

    def take(self, loop: Iterator[float], count: int) -> tuple[float, float]:
        """Seconds that steps of a loop take to the end of their work, and the least for handing one over."""
        begin = time.perf_counter()
        handed = min(islice(loop, count))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin, handed

    def clock(self, config: dict[str, Any], tokens: Any = None, vocab_size: int = 0) -> dict[str, Any]:
        """The pace of the plain loop of a configuration, on its own text when no tokens are given.

        `host_ms` near `step_ms` says that the device waits for Python.
        """
        release()
        if tokens is None:
            corpus = build(config["data"]).corpus
            tokens, vocab_size = corpus.train, corpus.tokenizer.vocab_size
        model, loop = bare_run(config, self.device, tokens, vocab_size)
        warmup_s, _ = self.take(loop, WINDOW)
        windows, handed = zip(*(self.take(loop, WINDOW) for _ in range(WINDOWS[self.quick])), strict=True)
        return {
            "step_ms": 1000 * statistics.median(windows) / WINDOW,
            "host_ms": 1000 * min(handed),
            "warmup_s": warmup_s,
            "parameters": count_parameters(model),
            "flops_per_token": flops_per_token(model, config["model"]["block_size"]),
        }


def release() -> None:
    """Give back what earlier models hold, and forget what was compiled for them: other sizes would make it general."""
    torch._dynamo.reset()
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def pace(rows: list[dict[str, str]]) -> dict[str, Any]:
    """What a run's metric rows say of its speed; the first window holds the compiler's work, and counts as a usual one.

    `step_ms` is the median of the other windows, `warmup_s` what the first took more, `seconds` those of training up
    to the end of each window, by step.
    """
    looks = [(int(row["step"]), float(row["throughput/step_ms"])) for row in rows if row["throughput/step_ms"]]
    (first, ms), step_ms = looks[0], statistics.median(ms for _, ms in looks[1:])
    seconds = {0: 0.0, first: first * step_ms / 1000}
    for (before, _), (step, window_ms) in pairwise(looks):
        seconds[step] = seconds[before] + (step - before) * window_ms / 1000
    return {"step_ms": step_ms, "warmup_s": first * (ms - step_ms) / 1000, "seconds": seconds}


def reach(losses: dict[int, float], seconds: dict[int, float], goal: float) -> dict[str, Any]:
    """Where a training was at the goal, by its losses and seconds at each validation; its end where it never was."""
    step = min((step for step, loss in losses.items() if loss <= goal), default=None)
    end = max(losses) if step is None else step
    return {"reached": step is not None, "steps": end, "train_s": seconds[end], "val_loss": min(losses.values())}


def verdict(figure: str, value: float | None, bar: float | None = None, *, most: bool = False) -> dict[str, Any]:
    """A figure beside its bar, which is the least that it should be, or the most."""
    holds = None if value is None or bar is None else value <= bar if most else value >= bar
    return {"figure": figure, "value": value, "bar": bar, "holds": holds}


def run_nanogpt(bench: Bench, *options: str) -> tuple[Path, list[tuple[float, str]]]:
    """nanoGPT's train.py with its Shakespeare configuration: where its weights are, and what it said, and when."""
    release()
    out = bench.folder / f"nanogpt-{time.monotonic_ns()}"
    command = [sys.executable, "-u", "-c", NANOGPT, "config/train_shakespeare_char.py", f"--out_dir={out}", *options]
    command += [f"--device={bench.device.type}", f"--compile={bench.device.type == 'cuda'}"]
    command += TINY_NANOGPT if bench.quick else []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=bench.nanogpt, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = [(time.perf_counter(), line) for line in process.stdout]
    if process.returncode:
        raise RuntimeError("nanoGPT ended with\n" + "".join(line for _, line in said[-20:]))
    return out, said


def events(said: list[tuple[float, str]], pattern: str) -> list[tuple[int, float]]:
    """The steps of the lines that begin with a pattern, and when they came."""
    found = ((re.match(pattern, line), when) for when, line in said)
    return [(int(match[1]), when) for match, when in found if match]


LOOK, EVALUATION = r"iter (\d+): loss", r"step (\d+): train loss"


def nanogpt_seconds(said: list[tuple[float, str]]) -> dict[int, float]:
    """Seconds of nanoGPT's training alone up to each of its evaluations.

    Between two evaluations the pace is that from the first look at the loss to the last; there it waits for the GPU.
    """
    looks, seconds = events(said, LOOK), {0: 0.0}
    for (before, _), (step, _) in pairwise(events(said, EVALUATION)):
        between = [look for look in looks if before <= look[0] < step]
        (first, begin), (last, end) = between[0], between[-1]
        seconds[step] = seconds[before] + (step - before) * (end - begin) / (last - first)
    return seconds


def nanogpt_losses(bench: Bench, out: Path) -> dict[int, float]:
    """The exact validation loss of each of nanoGPT's checkpoints, by step."""
    assert bench.nanogpt is not None
    theirs = runpy.run_path(str(bench.nanogpt / "model.py"))
    tokens = np.fromfile(bench.nanogpt / "data/shakespeare_char/val.bin", dtype=np.uint16)
    losses = {}
    for path in out.glob("ckpt.pt.*"):
        saved = torch.load(path, map_location=bench.device, weights_only=True)
        model = theirs["GPT"](theirs["GPTConfig"](**saved["model_args"])).to(bench.device)
        model.load_state_dict(saved["model"])
        losses[int(path.suffix[1:])] = exact_loss(bench, AllLogits(model), tokens, saved["model_args"]["block_size"])
    return losses


class AllLogits(nn.Module):
    """nanoGPT's model with the logits of all positions, which it gives along with a loss alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids [B, T] -> logits [B, T, V]."""
        return self.model(tokens, tokens)[0]


def exact_loss(bench: Bench, model: nn.Module, tokens: np.ndarray, block_size: int) -> float:
    """The mean over all tokens, in the precision of the training."""
    batches = ValidationStream(tokens, block_size=block_size, batch_size=64)
    return evaluate(model, NextToken(), batches, bench.precision).loss


def nanogpt_to_goal(bench: Bench, goal: float) -> dict[str, Any]:
    """nanoGPT's own program on its way to the goal."""
    out, said = run_nanogpt(bench, "--always_save_checkpoint=True")
    estimates = [float(found[1]) for _, line in said if (found := re.search(r"val loss ([\d.]+)", line))]
    found = reach(nanogpt_losses(bench, out), nanogpt_seconds(said), goal)
    warmup_s = events(said, LOOK)[0][1] - events(said, EVALUATION)[0][1]
    return {"who": "nanoGPT"} | found | {"own_estimate": min(estimates), "warmup_s": warmup_s}


def plain_to_goal(bench: Bench, goal: float) -> dict[str, Any]:
    """The plain loop with nanoGPT's settings on its way to the goal."""
    release()
    config = composed(*bench.options("experiment=nanogpt_gpu"))
    corpus, every = build(config["data"]).corpus, config["trainer"]["val_every_n_steps"]
    model, loop = bare_run(config, bench.device, corpus.train, corpus.tokenizer.vocab_size)
    (warmup_s, _), seconds, losses = bench.take(loop, 1), {0: 0.0}, {}
    for step in range(every, config["trainer"]["max_steps"] + 1, every):
        count = every - (step == every)  # the very first was the compiler's
        seconds[step] = seconds[step - every] + bench.take(loop, count)[0] * every / count
        losses[step] = exact_loss(bench, model, corpus.val, config["model"]["block_size"])
        if losses[step] <= goal:
            break
        model.train()
    return {"who": "a plain loop"} | reach(losses, seconds, goal) | {"warmup_s": warmup_s}


def measure_time_to_loss(bench: Bench) -> dict[str, Any]:
    """Seconds of training to an exact validation loss: experiment=fast_gpu before and after nanoGPT.

    Where nanoGPT's training does not get there, all of it counts, so that the ratio is too low rather than too high.
    """
    goal, ours = 10.0 if bench.quick else GOAL, []
    for seed in (1,) if bench.quick else (1, 2):
        run = bench.run("experiment=fast_gpu", f"seed={seed}")
        losses = {int(row["step"]): float(row["val/loss"]) for row in run["rows"] if row["val/loss"]}
        told = {name: run[name] for name in ("step_ms", "warmup_s", "parameters", "whole_program_s")}
        ours.append({"seed": seed} | reach(losses, run["seconds"], goal) | told)
        print(ours[-1], flush=True)
        if seed == 1:
            theirs = plain_to_goal(bench, goal) if bench.nanogpt is None else nanogpt_to_goal(bench, goal)
            print(theirs, flush=True)
    times = theirs["train_s"] / middle(ours)["train_s"] if all(run["reached"] for run in ours) else None
    figure = f"times as fast to {goal} as {theirs['who']}"
    return verdict(figure, times, 5.0) | {"goal": goal, "runs": ours, "theirs": theirs}


def measure_steps(bench: Bench) -> dict[str, Any]:
    """Tokens per second of nanoGPT's GPU configuration: as a run, in the plain loop, and nanoGPT's own."""
    options = ["experiment=nanogpt_gpu", "trainer.max_steps=400", "trainer.val_every_n_steps=400"]
    config, rows = composed(*bench.options(*options)), []
    tokens = 1000 * config["data"]["batch_size"] * config["model"]["block_size"]
    for _ in range(bench.repeats):
        row = {"tokens_per_s": tokens / bench.run(*options)["step_ms"]}
        row["plain_tokens_per_s"] = tokens / bench.clock(config)["step_ms"]
        row["times_plain"] = row["tokens_per_s"] / row["plain_tokens_per_s"]
        if bench.nanogpt is not None:
            _, said = run_nanogpt(bench, "--max_iters=400", "--eval_interval=100000", "--eval_iters=1")
            step_s = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(events(said, LOOK)))
            row["nanogpt_tokens_per_s"] = tokens / (1000 * step_s)
            row["times_nanogpt"] = row["tokens_per_s"] / row["nanogpt_tokens_per_s"]
        rows.append(row)
        print(row, flush=True)
    figures = middle(rows)
    key, who = ("times_plain", "a plain loop") if bench.nanogpt is None else ("times_nanogpt", "nanoGPT")
    return verdict(f"tokens/s over those of {who}", figures[key], 1.0) | figures | {"runs": rows}


def measure_overhead(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a step of experiment=fast_gpu with all that it does, and of a bare loop with the same parts."""
    options = ["experiment=fast_gpu", "trainer.max_steps=400", "trainer.val_every_n_steps=400"]
    config, rows = composed(*bench.options(*options)), []
    for _ in range(bench.repeats):
        run, bare = bench.run(*options), bench.clock(config)
        row = {"step_ms": run["step_ms"], "bare_step_ms": bare["step_ms"], "bare_host_ms": bare["host_ms"]}
        row["overhead"] = row["step_ms"] / row["bare_step_ms"] - 1
        rows.append(row)
        print(row, flush=True)
    figures = middle(rows)
    return verdict("of a bare step added", figures["overhead"], 0.03, most=True) | figures | {"runs": rows}


def measure_medium(bench: Bench) -> dict[str, Any]:
    """Model-FLOP utilisation of GPT-2's shape: with its vocabulary on random tokens, for several batches; as a run."""
    known = peak_flops(bench.device, bench.precision)
    peak, source = (None, "unknown device") if known is None else known
    config = composed(*bench.options("model=medium", "model.tie_head=true", "optimizer=adamw"))
    vocab_size = 100 if bench.quick else GPT2_VOCABULARY
    tokens, rows = np.random.default_rng(1).integers(0, vocab_size, 10**6, dtype=np.uint16), []
    for batch_size in (2, 4) if bench.quick else (8, 16, 32, 64):
        config["data"]["batch_size"] = batch_size
        row: dict[str, Any] = {"batch_size": batch_size}
        try:
            row |= bench.clock(config, tokens, vocab_size)
            row["tokens_per_s"] = 1000 * batch_size * config["model"]["block_size"] / row["step_ms"]
            row["mfu"] = row["tokens_per_s"] * row["flops_per_token"] / peak if peak is not None else None
        except torch.OutOfMemoryError:
            row["out_of_memory"] = True
        rows.append(row)
        print(row, flush=True)
    best = max((row for row in rows if "tokens_per_s" in row), key=lambda row: row["tokens_per_s"])
    run = bench.run("model=medium", f"data.batch_size={best['batch_size']}", "trainer.max_steps=60")
    shares = [float(row["throughput/mfu"]) for row in run["rows"] if row.get("throughput/mfu")]
    figures = {"peak_flops": peak, "peak": source, "run_mfu": statistics.median(shares[1:]) if shares else None}
    figures |= {"run_step_ms": run["step_ms"], "run_parameters": run["parameters"], "runs": rows}
    return verdict(f"MFU of {best['parameters']:,} parameters, batch {best['batch_size']}", best["mfu"], 0.55) | figures


def measure_generation(bench: Bench) -> dict[str, Any]:
    """Tokens per second of model=small at batch 1, with the cache and without."""
    torch.manual_seed(1)
    config = composed(*bench.options("model=small", "model.zero_init=false"))
    model = build(config["model"])(vocab_size=65).to(bench.device)
    figures = speed.measure_generation(model, 40 if bench.quick else 1000, bench.repeats)
    return verdict("times as fast with the cache", figures["times"]) | figures


MEASURES = {
    "time_to_loss": measure_time_to_loss,
    "steps": measure_steps,
    "overhead": measure_overhead,
    "medium": measure_medium,
    "generation": measure_generation,
}


def device_header(device: torch.device) -> dict[str, Any]:
    """The GPU and its driver."""
    if device.type != "cuda":
        return {"device": device.type}
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return {
        "device": torch.cuda.get_device_name(device),
        "driver": driver[0] if driver else None,
        "cuda": torch.version.cuda,
    }


def main() -> None:
    """Measure, print a table, write JSON; exit code 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", default="", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--only", nargs="*", choices=MEASURES, metavar="NAME", help=", ".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, any device, nothing written")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.quick:
        print("bench-gpu needs a CUDA device, and there is none; --quick tries the program anywhere", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        checkout = Path(arguments.nanogpt).absolute() if arguments.nanogpt else None
        bench = Bench(Path(name), checkout, device, arguments.quick)
        found, header = {}, device_header(device)
        for name in arguments.only or MEASURES:
            found[name] = MEASURES[name](bench)
            if not arguments.quick:  # at once: a later measure may fail
                write("gpu", header | found, merge=True)
    table = Table("measure", "figure", "measured", "bar", "", title=f"{header['device']}, torch {torch.__version__}")
    for name, row in found.items():
        shown = ["-" if row[key] is None else f"{row[key]:.3f}" for key in ("value", "bar")]
        table.add_row(name, row["figure"], *shown, {True: "holds", False: "[red]short", None: ""}[row["holds"]])
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    main()
