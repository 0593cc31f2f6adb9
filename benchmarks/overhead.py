"""The overhead of a run over a plain loop with the same model, and of the metrics of each layer, measured alternately.

Each within one process.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from benchmarks.plain import plain_run
from benchmarks.report import compose_config, medians, train

from minigpt.data.corpus import Corpus
from minigpt.training.callbacks import find
from minigpt.training.callbacks.layer_metrics import LayerMetrics

WINDOW = 10  # steps
NEVER = 10**9  # steps


class Interleave(lightning.Callback):
    """Runs steps of a plain loop between those of a run.

    The machine's speed changes within seconds by more than the overhead, so the two must alternate.

    Args:
        loop: yields the seconds of each of its steps.
        count: how many steps of the one to run before as many of the other.

    Attributes:
        pairs: milliseconds per step of the run and of the loop.
    """

    def __init__(self, loop: Iterator[float], count: int = 10) -> None:
        self.loop = loop
        self.count = count
        self.pairs: list[tuple[float, float]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.count == 0:
            run, plain = time.perf_counter() - self.start, sum(itertools.islice(self.loop, self.count))
            self.pairs.append((1000 * run / self.count, 1000 * plain / self.count))
            self.start = time.perf_counter()


class Alternate(lightning.Callback):
    """Switches the metrics of each layer on and off every `WINDOW` steps, in which they are measured once.

    Attributes:
        seconds: of each window; the metrics are on in those with an odd index.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        layer_metrics = find(trainer, LayerMetrics)
        assert layer_metrics is not None
        self.layer_metrics, self.seconds = layer_metrics, list[float]()
        self.default_interval, layer_metrics.every_n_steps = layer_metrics.every_n_steps, NEVER
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % WINDOW == 0:
            self.seconds.append(time.perf_counter() - self.start)
            self.layer_metrics.every_n_steps = WINDOW if len(self.seconds) % 2 else NEVER
            self.start = time.perf_counter()


def measure_layer_metrics(folder: Path, models: Sequence[str], pairs: int) -> dict[str, Any]:
    """What the metrics of each layer add to a step at their default interval, as a share of it.

    Each window with them is compared with the mean of the one before and the one after it, without them.
    """
    rows = []
    for model in models:
        alternate = Alternate()
        steps = WINDOW * (2 * pairs + 3)
        options = [f"model={model}", f"trainer.max_steps={steps}", f"trainer.val_every_n_steps={steps}"]
        with appended(alternate):
            train(folder, *options, "+trainer.limit_val_batches=1", in_process=True)
        s = alternate.seconds
        ratios = [s[n] / statistics.fmean((s[n - 1], s[n + 1])) for n in range(3, len(s) - 1, 2)]  # window 0 warms up
        steps_each = WINDOW * (statistics.median(ratios) - 1)
        row = {"model": model, "step_ms": 1000 * statistics.median(s[2::2]) / WINDOW, "measurement_steps": steps_each}
        rows.append(row | {"overhead": steps_each / alternate.default_interval, "ratios": ratios})
        print(rows[-1], flush=True)
    return {"rows": rows}


@contextlib.contextmanager
def appended(callback: lightning.Callback) -> Iterator[None]:
    """Runs of this process have one more callback, after all others."""
    fit = lightning.Trainer.fit

    def fit_with_it(trainer: Any, *args: Any, **kwargs: Any) -> None:
        trainer.callbacks.append(callback)
        fit(trainer, *args, **kwargs)

    with patch.object(lightning.Trainer, "fit", fit_with_it):
        yield


def measure_overhead(folder: Path, corpus: Corpus, repeats: int) -> dict[str, Any]:
    """Milliseconds per step of the default run and of a plain loop with the same model.

    Means of ten steps, so that each window has a logged step; the overhead is the median over the pairs of windows.
    """
    options, runs = ["trainer.max_steps=300", "trainer.val_every_n_steps=300"], []
    for _ in range(repeats):
        config = compose_config(*options)
        _, loop = plain_run(config, torch.device("cpu"), corpus.train, corpus.tokenizer.vocab_size)
        interleave = Interleave(loop)
        with appended(interleave):
            train(folder, *options, in_process=True)
        pairs = interleave.pairs[1:]  # both warm up in the first ten steps
        run, plain = map(statistics.median, zip(*pairs, strict=True))
        overhead = statistics.median(run / plain for run, plain in pairs) - 1
        runs.append({"step_ms": run, "plain_step_ms": plain, "overhead": overhead})
        print(runs[-1], flush=True)
    return {"runs": runs} | medians(runs)
