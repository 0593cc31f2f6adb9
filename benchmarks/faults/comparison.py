"""Compares finished runs bit for bit, and reads what they left behind."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# The columns of metrics.csv that do not depend on the clock.
DETERMINISTIC = "step train/loss val/loss val/bpc optim/lr optim/grad_norm progress/tokens".split()


def metric_records(run_dir: Path) -> list[tuple[str, ...]]:
    """The records of metrics.csv as text, without the columns that depend on the clock."""
    with (run_dir / "metrics.csv").open() as file:
        return [tuple(record.get(name, "") or "" for name in DETERMINISTIC) for record in csv.DictReader(file)]


def has_records(run_dir: Path, count: int = 1) -> bool:
    """Whether a run has logged at least so many records."""
    path = run_dir / "metrics.csv"
    return path.is_file() and path.read_bytes().count(b"\n") > count


def read_summary_file(run_dir: Path) -> dict[str, Any]:
    """A run's summary.json; empty if there is none."""
    try:
        return json.loads((run_dir / "summary.json").read_text())
    except (OSError, ValueError):
        return {}


def state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint."""
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def equal_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same tensors."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def flat_state(path: Path) -> dict[str, Tensor]:
    """Weights and optimizer state of a checkpoint in one flat dict."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    flat = dict(checkpoint["state_dict"])
    for index, optimizer in enumerate(checkpoint["optimizer_states"]):
        for parameter, state in optimizer["state"].items():
            flat |= {f"{index}/{parameter}/{name}": torch.as_tensor(value) for name, value in state.items()}
    return flat


def difference(one: Path, two: Path) -> str:
    """The first difference between two finished runs; empty if they are identical."""
    if not all((run_dir / "checkpoints/last.ckpt").is_file() for run_dir in (one, two)):
        return "no last checkpoint"
    for name in ("last.ckpt", "best.ckpt"):
        if not equal_weights(flat_state(one / "checkpoints" / name), flat_state(two / "checkpoints" / name)):
            return f"weights of {name}"
    if metric_records(one) != metric_records(two):
        return "records of metrics.csv"
    if (one / "samples.md").read_text() != (two / "samples.md").read_text():
        return "samples"
    return "" if all(read_summary_file(d).get("status") == "completed" for d in (one, two)) else "status"
