"""The references of `benchmarks/gpu.py` for time to loss: nanoGPT's own training on a GPU, and the plain loop."""

import re
import runpy
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.gpu_bench import Bench, free_memory, time_to_goal
from benchmarks.plain import plain_run
from benchmarks.report import compose_config
from torch import nn

from minigpt.config.build import build

TINY_NANOGPT = """
    --n_layer=1 --n_head=2 --n_embd=32 --block_size=32 --batch_size=4 --max_iters=40 --eval_interval=20 --log_interval=5
    --eval_iters=1
""".split()
# nanoGPT overwrites its checkpoint; this keeps the weights of each one, so that their exact loss can be computed.
NANOGPT = """
import runpy, sys, torch
save = torch.save
def keep(checkpoint, path):
    weights = {name.removeprefix("_orig_mod."): weight for name, weight in checkpoint["model"].items()}
    save({"model": weights, "model_args": checkpoint["model_args"]}, f"{path}.{checkpoint['iter_num']}")
torch.save = keep
runpy.run_path("train.py", run_name="__main__")
"""
ITERATION, EVALUATION = r"iter (\d+): loss", r"step (\d+): train loss"
TimedLine = tuple[float, str]  # the time of a line of output, and the line


def run_nanogpt(bench: Bench, *options: str) -> tuple[Path, list[TimedLine]]:
    """Run nanoGPT's train.py with its Shakespeare configuration; returns its output folder and its output."""
    free_memory()
    out = bench.folder / f"nanogpt-{time.monotonic_ns()}"
    command = [sys.executable, "-u", "-c", NANOGPT, "config/train_shakespeare_char.py", f"--out_dir={out}", *options]
    command += [f"--device={bench.device.type}", f"--compile={bench.device.type == 'cuda'}"]
    command += TINY_NANOGPT if bench.quick else []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=bench.nanogpt, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        output = [(time.perf_counter(), line) for line in process.stdout]
    if process.returncode:
        raise RuntimeError("nanoGPT failed with\n" + "".join(line for _, line in output[-20:]))
    return out, output


def timed_steps(output: list[TimedLine], pattern: str) -> list[tuple[int, float]]:
    """The steps of the lines that match a pattern, and the times of those lines."""
    found = ((re.match(pattern, line), when) for when, line in output)
    return [(int(match[1]), when) for match, when in found if match]


def nanogpt_seconds(output: list[TimedLine]) -> dict[int, float]:
    """Seconds of nanoGPT's training up to each of its evaluations, by step, without the evaluations.

    The speed between two evaluations is that between the first and the last loss it prints, where it waits for the GPU.
    """
    iterations, seconds = timed_steps(output, ITERATION), {0: 0.0}
    for (before, _), (step, _) in pairwise(timed_steps(output, EVALUATION)):
        between = [iteration for iteration in iterations if before <= iteration[0] < step]
        (first, start), (last, end) = between[0], between[-1]
        seconds[step] = seconds[before] + (step - before) * (end - start) / (last - first)
    return seconds


def nanogpt_losses(bench: Bench, out: Path) -> dict[int, float]:
    """The exact validation loss of each of nanoGPT's checkpoints, by step."""
    assert bench.nanogpt is not None
    module = runpy.run_path(str(bench.nanogpt / "model.py"))
    tokens = np.fromfile(bench.nanogpt / "data/shakespeare_char/val.bin", dtype=np.uint16)
    losses = {}
    for path in out.glob("ckpt.pt.*"):
        saved = torch.load(path, map_location=bench.device, weights_only=True)
        model = module["GPT"](module["GPTConfig"](**saved["model_args"])).to(bench.device)
        model.load_state_dict(saved["model"])
        losses[int(path.suffix[1:])] = bench.exact_loss(AllLogits(model), tokens, saved["model_args"]["block_size"])
    return losses


class AllLogits(nn.Module):
    """nanoGPT's model with the logits of all positions, which it returns only together with a loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids [B, T] -> logits [B, T, V]."""
        return self.model(tokens, tokens)[0]


def nanogpt_to_goal(bench: Bench, goal: float) -> dict[str, Any]:
    """Train with nanoGPT's own program until the exact validation loss reaches the goal."""
    out, output = run_nanogpt(bench, "--always_save_checkpoint=True")
    estimates = [float(found[1]) for _, line in output if (found := re.search(r"val loss ([\d.]+)", line))]
    found = time_to_goal(nanogpt_losses(bench, out), nanogpt_seconds(output), goal)
    warmup_s = timed_steps(output, ITERATION)[0][1] - timed_steps(output, EVALUATION)[0][1]
    return {"who": "nanoGPT"} | found | {"own_estimate": min(estimates), "warmup_s": warmup_s}


def plain_to_goal(bench: Bench, goal: float) -> dict[str, Any]:
    """Train with the plain loop and nanoGPT's settings until the exact validation loss reaches the goal."""
    free_memory()
    config = compose_config(*bench.options("experiment=nanogpt_gpu"))
    corpus, interval = build(config["data"]).corpus, config["trainer"]["val_every_n_steps"]
    model, loop = plain_run(config, bench.device, corpus.train, corpus.tokenizer.vocab_size)
    (warmup_s, _), seconds, losses = bench.time_steps(loop, 1), {0: 0.0}, {}
    for step in range(interval, config["trainer"]["max_steps"] + 1, interval):
        count = interval - (step == interval)  # the first step was for compiling
        seconds[step] = seconds[step - interval] + bench.time_steps(loop, count)[0] * interval / count
        losses[step] = bench.exact_loss(model, corpus.val, config["model"]["block_size"])
        if losses[step] <= goal:
            break
        model.train()
    return {"who": "a plain loop"} | time_to_goal(losses, seconds, goal) | {"warmup_s": warmup_s}
