"""What a report reads: run directories, which may come from anybody and may be damaged."""

import glob
import math
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from minigpt.runs.directory import CONFIG, METRICS, SAMPLES, find_run
from minigpt.runs.labels import flatten
from minigpt.runs.ranking import configuration_name, differing_options, read_job, seed_of
from minigpt.runs.run_files import Sample, iter_samples, read_metrics, read_samples
from minigpt.runs.untrusted import UntrustedFileError, check_mapping, read_yaml

CURVES = ("train/loss", "val/loss", "val/bpc")
# Titles and units of what is measured in each layer, by the first part of the metric's name.
LAYER_METRICS = {
    "grad_norm": ("Gradient norm", "before clipping"),
    "update_ratio": ("Update ratio", "norm of the change / norm of the weights"),
    "activation_rms": ("Activations", "root mean square"),
    "attention_entropy": ("Attention entropy", "nats"),
    "max_logit": ("Largest logit", "attention score, or logit of the head"),
}


@dataclass
class ReportedRun:
    """One run, as far as its files can be read.

    Attributes:
        directory: where it is.
        summary: its summary.json; status and error where there is none.
        config: its options by their dotted names.
        curves: (step, value) pairs, by the name of the metric.
        samples: of its model, in the order of the steps.
        problems: what cannot be read, one line each.
        options: those that not all runs of the report have.
    """

    directory: Path
    summary: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    @property
    def configuration(self) -> str:
        """The options but the seed."""
        return configuration_name(self.options, self.summary)

    @property
    def text(self) -> str | None:
        """The text that it was trained on; None where the run has not come that far."""
        return self.summary.get("text")

    @property
    def tokenizer(self) -> str:
        """Its tokenizer, with the size of the vocabulary where that is an option."""
        kind = str(self.config.get("data.tokenizer._target_", "unknown")).rpartition(".")[2]
        size = self.config.get("data.tokenizer.vocab_size")
        return kind if size is None else f"{kind} ({size})"

    def row(self) -> dict[str, Any]:
        """The figures of the ranking, as `summarize_configurations` takes them."""
        figures = ("val_bpc_best", "val_loss_best", "val_loss_best_step", "parameters", "train_s", "tokens_per_s")
        return {
            **{key: self.summary.get(key) for key in figures},
            "job": self.directory.name,
            "configuration": self.configuration,
            "seed": seed_of(self.options, self.summary),
            "status": self.summary.get("status", "unknown"),
        }


def find_runs(reference: str, runs_dir: Path) -> tuple[list[Path], Path]:
    """The directories of the runs that are named, and where their report belongs.

    Args:
        reference: a run's directory, a sweep's, `latest`, or a glob of such directories.
        runs_dir: where `latest` is looked for.

    Raises:
        ValueError: there is no run.
    """
    if reference == "latest":
        run = find_run(reference, runs_dir)
        return [run], run
    found = glob.glob(reference)  # noqa: PTH207, Path.glob takes no absolute pattern
    named = [Path(reference)] if Path(reference).is_dir() else sorted(map(Path, found))
    runs = list(dict.fromkeys(run for directory in named for run in runs_in(directory)))
    if not runs:
        raise ValueError(
            f"no run at runs={reference}: name the directory of a run (it holds {CONFIG}) or of a sweep, latest, "
            f"or a glob of such directories in quotes"
        )
    return runs, named[0] if len(named) == 1 else Path(os.path.commonpath([path.absolute() for path in named]))


def runs_in(directory: Path) -> list[Path]:
    """A directory itself where it is a run's, else the runs in it; a sweep's jobs by number."""
    if not directory.is_dir():
        return []
    if os.path.lexists(directory / CONFIG):
        return [directory]
    inside = [path for path in directory.iterdir() if path.is_dir()]
    runs = [path for path in inside if os.path.lexists(path / CONFIG) or path.name.isdecimal()]
    return sorted(runs, key=lambda run: (int(run.name) if run.name.isdecimal() else -1, run.name))


def read_runs(directories: list[Path]) -> list[ReportedRun]:
    """Read runs; what is damaged costs its own part of the report alone.

    Raises:
        ValueError: none of them has a curve or a result.
    """
    runs = [read_run(directory, layers=len(directories) == 1) for directory in directories]
    typed = [[o for o in run.summary.get("overrides", []) if not o.startswith("paths.")] for run in runs]
    for run, options in zip(runs, differing_options(typed), strict=True):  # a job that still runs has its directory too
        run.options = options
    if not any(run.curves or run.summary.get("val_bpc_best") is not None for run in runs):
        problems = [problem for run in runs for problem in run.problems]
        raise ValueError(problems[0] if problems else f"{directories[0]} has no metrics yet: let it train first")
    return runs


def read_run(directory: Path, *, layers: bool) -> ReportedRun:
    """Read one run; with `layers`, the curves of its layers too."""
    run = ReportedRun(directory, read_job(directory))
    if error := run.summary.get("error"):
        run.problems.append(f"{directory.name}: {error}")
    for read in (read_config, partial(read_curves, layers=layers), read_texts):
        try:
            read(run)
        except UntrustedFileError as error:
            run.problems.append(str(error))
    return run


def read_config(run: ReportedRun) -> None:
    """Read a run's options."""
    path = run.directory / CONFIG
    if os.path.lexists(path):
        run.config = dict(flatten(check_mapping(read_yaml(path), path)))


def read_curves(run: ReportedRun, *, layers: bool) -> None:
    """Read a run's curves; values that are no finite numbers are gaps."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in read_metrics(run.directory / METRICS):
        curves = curves or {name: [] for name in record if is_shown(name, layers)}
        for name in curves:
            if text := record[name]:
                try:
                    value = float(text)
                except ValueError as error:
                    raise UntrustedFileError(f"{run.directory / METRICS} is damaged: {name} is no number") from error
                if math.isfinite(value):
                    curves[name].append((int(record["step"]), value))
    run.curves = {name: points for name, points in curves.items() if points}


def is_shown(metric: str, layers: bool) -> bool:
    """Whether a metric is drawn; with `layers`, those of the layers too."""
    return metric in CURVES or (layers and metric.partition("/")[0] in LAYER_METRICS)


def read_texts(run: ReportedRun) -> None:
    """Read a run's samples."""
    run.samples = list(iter_samples(read_samples(run.directory / SAMPLES)))
