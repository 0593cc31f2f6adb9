"""How `benchmarks/gpu.py` measures: runs and plain loops on one device, and their speed."""

import gc
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.plain import plain_run
from benchmarks.report import train
from torch import nn

from minigpt.config.build import build
from minigpt.data.loaders import ValLoader
from minigpt.devices import resolve_precision
from minigpt.inference.scoring import evaluate
from minigpt.model.objectives import NextToken
from minigpt.model.size import count_parameters, flops_per_token

WINDOW, WINDOWS = 10, {False: 20, True: 2}  # steps between two synchronizations, and how many windows
TINY = """
    data=synthetic data.num_chars=20000 data.batch_size=4 model.num_layers=1 model.num_heads=2 model.dim=32
    model.block_size=32 trainer.max_steps=6 trainer.log_every_n_steps=3 trainer.val_every_n_steps=3 logger=csv
    callbacks.samples=null
""".split()


@dataclass(frozen=True)
class Bench:
    """The device and the settings of a session.

    Attributes:
        folder: for temporary files.
        nanogpt: a checkout of nanoGPT with its Shakespeare data prepared, if there is one.
        quick: use tiny models and few steps, to check that everything runs.
    """

    folder: Path
    nanogpt: Path | None
    device: torch.device
    quick: bool

    @property
    def repeats(self) -> int:
        """How often each measurement is repeated."""
        return 1 if self.quick else 3

    @property
    def precision(self) -> str:
        """The precision that precision=auto selects on the device."""
        return resolve_precision("auto", self.device.type)

    def options(self, *options: str) -> list[str]:
        """Options of src/train.py; those of a tiny run if quick."""
        if not self.quick:
            return [*options, "compile=true"]
        return [*options, *TINY, f"paths.data_dir={self.folder}", f"compile={self.device.type == 'cuda'}"]

    def run(self, *options: str) -> dict[str, Any]:
        """Run src/train.py and add its speed to the result."""
        free_memory()
        run = train(self.folder, *self.options(*options), in_process=self.quick)
        return run | training_speed(run["records"])

    def time_steps(self, loop: Iterator[float], count: int) -> tuple[float, float]:
        """Seconds that steps of a loop take until the device has finished, and the least to queue one step."""
        start = time.perf_counter()
        queued = min(islice(loop, count))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, queued

    def time_plain_loop(self, config: dict[str, Any], tokens: Any = None, vocab_size: int = 0) -> dict[str, Any]:
        """The speed of the plain loop of a configuration, on the configuration's own text if no tokens are given.

        A `host_ms` close to `step_ms` means that the device waits for Python.
        """
        free_memory()
        if tokens is None:
            corpus = build(config["data"]).corpus
            tokens, vocab_size = corpus.train, corpus.tokenizer.vocab_size
        model, loop = plain_run(config, self.device, tokens, vocab_size)
        warmup_s, _ = self.time_steps(loop, WINDOW)
        windows, queued = zip(*(self.time_steps(loop, WINDOW) for _ in range(WINDOWS[self.quick])), strict=True)
        return {
            "step_ms": 1000 * statistics.median(windows) / WINDOW,
            "host_ms": 1000 * min(queued),
            "warmup_s": warmup_s,
            "parameters": count_parameters(model),
            "flops_per_token": flops_per_token(model, config["model"]["block_size"]),
        }

    def exact_loss(self, model: nn.Module, tokens: np.ndarray, block_size: int) -> float:
        """The mean loss over all tokens, in the precision of the training."""
        batches = ValLoader(tokens, block_size=block_size, batch_size=64)
        return evaluate(model, NextToken(), batches, self.precision).loss


def free_memory() -> None:
    """Free what earlier models hold, and reset the compiler, which would compile other sizes as dynamic shapes."""
    torch._dynamo.reset()
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


def training_speed(records: list[dict[str, str]]) -> dict[str, Any]:
    """The speed of a run from its records in metrics.csv, without the time for compiling.

    Returns:
        `step_ms`: the median of all windows but the first, which includes compiling and is counted as a median one;
        `warmup_s`: how much longer the first window took; `seconds`: training seconds to the end of each window, by
        step.
    """
    windows = [(int(r["step"]), float(r["throughput/step_ms"])) for r in records if r["throughput/step_ms"]]
    (first, ms), step_ms = windows[0], statistics.median(ms for _, ms in windows[1:])
    seconds = {0: 0.0, first: first * step_ms / 1000}
    for (before, _), (step, window_ms) in pairwise(windows):
        seconds[step] = seconds[before] + (step - before) * window_ms / 1000
    return {"step_ms": step_ms, "warmup_s": first * (ms - step_ms) / 1000, "seconds": seconds}


def time_to_goal(losses: dict[int, float], seconds: dict[int, float], goal: float) -> dict[str, Any]:
    """The first step with a loss at or below the goal, and its training seconds; the last step if there is none.

    Args:
        losses: validation losses by step.
        seconds: training seconds by step.
    """
    step = min((step for step, loss in losses.items() if loss <= goal), default=None)
    end = max(losses) if step is None else step
    return {"reached": step is not None, "steps": end, "train_s": seconds[end], "val_loss": min(losses.values())}
