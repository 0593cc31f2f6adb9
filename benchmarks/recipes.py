"""What the runs of an experiment came to: mean and standard error of their losses, and the loss of all models together.

After `python src/train.py -m experiment=record seed=1,2,3,4,5` it is `python -m benchmarks.recipes logs/sweeps/.../*`.
Directories that hold no completed run are passed over.
"""

import argparse
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.report import composed, write
from torch import Tensor, nn

from minigpt.inference.load import Trained, find_trained
from minigpt.inference.report import find_scored, text_batches
from minigpt.inference.scoring import evaluate
from minigpt.runs.summary import read_summary

KEPT = "seed steps parameters val_loss train_s tokens_per_s precision torch git_commit".split()


class Ensemble(nn.Module):
    """The mean of the models' probabilities."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] -> log-probabilities [B, T, V]."""
        log_p = torch.stack([model(tokens).float().log_softmax(dim=-1) for model in self.models])
        return log_p.logsumexp(dim=0) - math.log(len(self.models))


def summarise(directories: list[Path]) -> dict[str, Any]:
    """The completed runs of one experiment."""
    summaries = [read_summary(directory) or {} for directory in directories]
    losses = [summary["val_loss"] for summary in summaries]
    found: dict[str, Any] = {"val_loss": statistics.mean(losses)}
    if len(losses) > 1:
        found["standard_error"] = statistics.stdev(losses) / math.sqrt(len(losses))
        found["ensemble_val_loss"] = score_together([find_trained(str(d), "", "auto") for d in directories])
    return found | {"runs": [{key: summary[key] for key in KEPT} for summary in summaries]}


def score_together(trained: list[Trained]) -> float:
    """The exact validation loss of the ensemble."""
    first = trained[0]
    path, val_fraction = find_scored(first, {"text": None, "paths": composed()["paths"]})
    batches, _ = text_batches(first, path, val_fraction)
    return evaluate(Ensemble([t.model for t in trained]), first.objective, batches, first.precision).loss


def main() -> None:
    """Sum up the runs that are named, print it, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    experiments: dict[str, list[Path]] = defaultdict(list)
    for directory in parser.parse_args().runs:
        if (read_summary(directory) or {}).get("status") == "completed":
            experiments[yaml.safe_load((directory / "config.yaml").read_text())["name"]].append(directory)
    found = {name: summarise(directories) for name, directories in experiments.items()}
    print(json.dumps(found, indent=2))
    write("recipes", found, merge=True)


if __name__ == "__main__":
    main()
