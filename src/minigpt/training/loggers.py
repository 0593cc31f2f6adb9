"""Where metrics and samples are written: a CSV file, TensorBoard, and Weights & Biases (`wandb_logger`)."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from minigpt.runs.directory import METRICS, is_rank_zero
from minigpt.runs.run import Run
from minigpt.runs.run_files import read_metrics, write_metrics
from minigpt.training.wandb_logger import WandB


@dataclass(frozen=True)
class Sample:
    """A text that the model of one step has written.

    Attributes:
        prompt: what it continues.
        text: prompt and continuation.
        log_probability: of the tokens that were drawn, their mean [nats per token]; None where nothing was drawn.
    """

    prompt: str
    text: str
    log_probability: float | None = None


class CSVLogger(Logger):
    """`metrics.csv`: one record per call, one column per metric, written at once. A resumed run continues it.

    Lightning's own logger deletes the file of a run that is resumed, and keeps a hundred records in memory.
    """

    def __init__(self, *, run: Run) -> None:
        super().__init__()
        self.path = (run.directory or Path(os.devnull)) / METRICS  # only rank 0 writes
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has the configuration."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not is_rank_zero():
            return
        record = {"step": step, **metrics}
        if new := [name for name in record if name not in self.columns]:
            records = list(read_metrics(self.path))  # none but for the first record of this process, or a new column
            self.columns = list(dict.fromkeys((*(records[0] if records else ()), *self.columns, *new)))
            write_metrics(self.path, self.columns, records)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(record)


class TensorBoard(TensorBoardLogger):
    """TensorBoard's event files in the run directory's `tensorboard/`."""

    def __init__(self, *, run: Run) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError('TensorBoard is not installed: pip install -c constraints.txt -e ".[tensorboard]"')
        super().__init__(str(run.directory or ""), name="", version="tensorboard")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has the configuration."""

    def save(self) -> None:
        if is_rank_zero():
            self.experiment.flush()


def log_sample(logger: Logger, sample: Sample, step: int) -> None:
    """Hand a sample to a logger that can show it."""
    if isinstance(logger, WandB):
        logger.log_sample(step, sample.prompt, sample.text, sample.log_probability)
    elif isinstance(logger, TensorBoard):
        logger.experiment.add_text("samples", sample.text, step)


def log_histogram(logger: Logger, name: str, values: np.ndarray, step: int) -> None:
    """Hand numbers to a logger that can show their histogram. Those that are not finite are left out."""
    values = values[np.isfinite(values)]

    def histogram() -> Any:
        import wandb

        return wandb.Histogram(np_histogram=np.histogram(values, bins=64))

    if isinstance(logger, WandB):
        logger.log_media(name, histogram, step)
    elif isinstance(logger, TensorBoard):
        logger.experiment.add_histogram(name, values, step)


def log_image(logger: Logger, name: str, image: np.ndarray, step: int) -> None:
    """Hand an image [height, width, 3] of bytes to a logger that can show it."""

    def png() -> Any:
        import wandb

        return wandb.Image(image)

    if isinstance(logger, WandB):
        logger.log_media(name, png, step)
    elif isinstance(logger, TensorBoard):
        logger.experiment.add_image(name, image, step, dataformats="HWC")


def shows_media(logger: Logger) -> bool:
    """Whether a logger can show images and histograms."""
    return isinstance(logger, WandB | TensorBoard)
