"""Summarizes the runs of an experiment: mean loss, standard error, and the loss of the ensemble of all models.

After `python src/train.py -m experiment=record seed=1,2,3,4,5`, run `python -m benchmarks.recipes logs/sweeps/.../*`.
Directories without a completed run are skipped.
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
from benchmarks.report import compose_config, write_results
from torch import Tensor, nn

from minigpt.inference.eval_text import VAL, exact_batches, find_training_text, read_eval_text
from minigpt.inference.load import LoadedModel, find_model
from minigpt.inference.scoring import evaluate
from minigpt.runs.summary import read_summary

SUMMARY_KEYS = "seed steps parameters val_loss train_s tokens_per_s precision torch git_commit".split()


class Ensemble(nn.Module):
    """The mean of the models' probabilities."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] -> log-probabilities [B, T, V]."""
        log_p = torch.stack([model(tokens).float().log_softmax(dim=-1) for model in self.models])
        return log_p.logsumexp(dim=0) - math.log(len(self.models))


def summarize(directories: list[Path]) -> dict[str, Any]:
    """Summarize the completed runs of one experiment."""
    summaries = [read_summary(directory) or {} for directory in directories]
    losses = [summary["val_loss"] for summary in summaries]
    found: dict[str, Any] = {"val_loss": statistics.mean(losses)}
    if len(losses) > 1:
        found["standard_error"] = statistics.stdev(losses) / math.sqrt(len(losses))
        found["ensemble_val_loss"] = ensemble_loss([find_model(str(d), "", "auto") for d in directories])
    return found | {"runs": [{key: summary[key] for key in SUMMARY_KEYS} for summary in summaries]}


def ensemble_loss(models: list[LoadedModel]) -> float:
    """The exact validation loss of the ensemble."""
    first = models[0]
    text = read_eval_text(first, find_training_text(first, compose_config()["paths"]["data_dir"]), VAL)
    batches = exact_batches(first, text)
    return evaluate(Ensemble([m.model for m in models]), first.objective, batches, first.precision).loss


def main() -> None:
    """Summarize the given runs by experiment, print the result and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    experiments: dict[str, list[Path]] = defaultdict(list)
    for directory in parser.parse_args().runs:
        if (read_summary(directory) or {}).get("status") == "completed":
            experiments[yaml.safe_load((directory / "config.yaml").read_text())["name"]].append(directory)
    results = {name: summarize(directories) for name, directories in experiments.items()}
    print(json.dumps(results, indent=2))
    write_results("recipes", results, merge=True)


if __name__ == "__main__":
    main()
