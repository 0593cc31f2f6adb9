"""Plot a run's loss curves: `python docs/plot_curve.py logs/runs/NAME docs/curve.png` (needs `pip install .[docs]`)."""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main(run: Path, picture: Path) -> None:
    """Plot training and validation loss over seconds of training."""
    with (run / "metrics.csv").open() as file:
        records = list(csv.DictReader(file))
    seconds, steps, previous = {0: 0.0}, [], 0
    for record in records:
        if record["throughput/step_ms"]:
            step = int(record["step"])
            seconds[step] = seconds[previous] + (step - previous) * float(record["throughput/step_ms"]) / 1000
            previous = step
            steps.append((seconds[step], float(record["train/loss"])))
    validation = [(seconds[int(record["step"])], float(record["val/loss"])) for record in records if record["val/loss"]]
    figure, axes = plt.subplots(figsize=(7, 3.6), dpi=130)
    axes.plot(*zip(*steps, strict=True), color="#9db4c0", label="training (mean of 10 steps)")
    axes.plot(*zip(*validation, strict=True), color="#c0392b", marker="o", label="validation (exact, whole split)")
    axes.axhline(1.88, color="#555555", linestyle=":", label="nanoGPT's CPU configuration, at its end")
    axes.annotate(f"{validation[-1][1]:.3f}", validation[-1], textcoords="offset points", xytext=(-4, 8), ha="right")
    axes.set(xlabel="seconds of training on two CPU cores", ylabel="loss [nats per character]", ylim=(1.4, 3.0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
