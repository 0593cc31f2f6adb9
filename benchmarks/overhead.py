"""The overhead of a run over a plain loop with the same model, measured alternately in one process."""

import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from benchmarks.plain import plain_run
from benchmarks.report import compose_config, medians, train

from minigpt.data.corpus import Corpus


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


def measure_overhead(folder: Path, corpus: Corpus, repeats: int) -> dict[str, Any]:
    """Milliseconds per step of the default run and of a plain loop with the same model.

    Means of ten steps, so that each window has a logged step; the overhead is the median over the pairs of windows.
    """
    options, runs = ["trainer.max_steps=300", "trainer.val_every_n_steps=300"], []
    fit = lightning.Trainer.fit
    for _ in range(repeats):
        config = compose_config(*options)
        _, loop = plain_run(config, torch.device("cpu"), corpus.train, corpus.tokenizer.vocab_size)
        interleave = Interleave(loop)

        def interleaved_fit(trainer: Any, *args: Any, interleave: Interleave = interleave, **kwargs: Any) -> None:
            trainer.callbacks.append(interleave)
            fit(trainer, *args, **kwargs)

        with patch.object(lightning.Trainer, "fit", interleaved_fit):
            train(folder, *options, in_process=True)
        pairs = interleave.pairs[1:]  # both warm up in the first ten steps
        run, plain = map(statistics.median, zip(*pairs, strict=True))
        overhead = statistics.median(run / plain for run, plain in pairs) - 1
        runs.append({"step_ms": run, "plain_step_ms": plain, "overhead": overhead})
        print(runs[-1], flush=True)
    return {"runs": runs} | medians(runs)
