"""Plot the loss curves of benchmarks/time_to_loss.py (needs `pip install .[docs]`).

    python docs/plot_curve.py benchmarks/results/time_to_loss_DATE.json docs/curve.png

Without arguments: the newest of those files, and docs/curve.png, which has the name of the file in its metadata.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
WORDS = {"32-true": "float32", "bf16-mixed": "bfloat16"}


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run whose training time is the median, or the next above it."""
    return sorted(runs, key=lambda run: run["train_s"])[len(runs) // 2]


def points(run: dict[str, Any], name: str) -> tuple[list[float], list[float]]:
    """The seconds of training and the losses of a curve."""
    curve = [point for point in run["curve"] if point.get(name) is not None]
    return [point["train_s"] for point in curve], [point[name] for point in curve]


def main(source: Path, picture: Path) -> None:
    """Plot the losses of one run of miniGPT and one of nanoGPT over their seconds of training."""
    report = json.loads(source.read_text())
    ours, theirs = (median_run(report[f"{name}_runs"]) for name in ("minigpt", "nanogpt"))
    own, their = (WORDS[run["precision"]] for run in (ours, theirs))
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=130)
    axes.plot(*points(ours, "train/loss"), color="#9db4c0", label=f"miniGPT, {own}: training (mean of 10 steps)")
    validation = points(ours, "val/loss")
    axes.plot(*validation, color="#c0392b", marker="o", label=f"miniGPT, {own}: validation (exact, whole split)")
    estimates = points(theirs, "val/loss")
    axes.plot(
        *estimates, color="#555555", linestyle=":", marker=".", label=f"nanoGPT, {their}: validation (its estimate)"
    )
    for seconds, losses in (validation, estimates):
        axes.annotate(
            f"{losses[-1]:.3f}", (seconds[-1], losses[-1]), textcoords="offset points", xytext=(-4, 8), ha="right"
        )
    axes.set(xlabel="seconds of training on two CPU cores", ylabel="loss [nats per character]", ylim=(1.4, 3.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(picture, metadata={"Source": source.name})


if __name__ == "__main__":
    newest = sorted((ROOT / "benchmarks/results").glob("time_to_loss_*.json"))[-1]
    main(*(map(Path, sys.argv[1:]) if len(sys.argv) == 3 else (newest, ROOT / "docs/curve.png")))
