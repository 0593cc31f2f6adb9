"""What evaluate.py does: score checkpoints by one of several protocols, and print JSON or a table."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from minigpt.atomic_file import atomic_write
from minigpt.data.loaders import Batch
from minigpt.data.tokenizer import LineTokenizer
from minigpt.data.window_batches import random_windows, sliding_windows
from minigpt.devices import resolve_precision, score_precision
from minigpt.inference.denoise_lines import denoise_eval_lines
from minigpt.inference.dynamic_evaluation import DynamicUpdate, dynamic_scores, gradient_rms
from minigpt.inference.eval_text import (
    TRAIN,
    EvalText,
    exact_batches,
    find_eval_text,
    find_training_text,
    read_eval_text,
)
from minigpt.inference.load import LoadedModel, find_model, locate_model
from minigpt.inference.precision import inference_precision
from minigpt.inference.score_table import describe_details, table
from minigpt.inference.scoring import DetailedScore, bits_per_character, detailed_scores

# The beginning of a metric's name: `val` and `train` are the exact loss, which no other protocol is called.
PREFIXES = {"random": "random_crop", "sliding": "sliding_window", "dynamic": "dynamic"}
RMS_WINDOWS = 500  # windows of the training text that the size of a gradient is measured on
DETAILS = ("calibration", "loss_by_position", "loss_by_token")


def evaluate_runs(config: dict[str, Any], trusted: frozenset[str]) -> float:
    """Score one or several checkpoints, print the results, and return the loss of the first.

    Args:
        config: the options of evaluate.py.
        trusted: see `minigpt.inference.load.build_model`.

    Raises:
        ValueError: a checkpoint or its text cannot be scored, or the output not be written.
    """
    check_output(config["output"])
    device, average_last_n, runs_dir = config["device"], config["average_last_n"], config["paths"]["runs_dir"]
    paths = [locate_model(reference, runs_dir) for reference in split_references(config["run"])]
    results = [evaluate_run(find_model(str(path), runs_dir, device, average_last_n, trusted), config) for path in paths]
    if config["output"] is not None:
        with atomic_write(Path(config["output"])) as temporary:
            temporary.write_text(to_json(results) + "\n", encoding="utf-8")
    print_results(results, config)
    return results[0][f"{prefix_of(config)}_loss"]


def split_references(run: str) -> list[str]:
    """Return the checkpoints of `run=A,B` or `run=[A,B]`; a name with a comma of its own is one."""
    if Path(run).exists() or "," not in run:
        return [run]
    return [part.strip() for part in run.removeprefix("[").removesuffix("]").split(",") if part.strip()]


def check_output(output: str | None) -> None:
    """Raise ValueError if there is something at the place of the output file, or no folder for it."""
    if output is None:
        return
    if Path(output).exists():
        raise ValueError(f"{output} exists already: name another file with output=...")
    if not Path(output).parent.is_dir():
        raise ValueError(f"there is no folder {Path(output).parent} for output={output}: make it first")


def evaluate_run(loaded: LoadedModel, config: dict[str, Any]) -> dict[str, Any]:
    """Score a model on a split of its text or on another text, and return all figures.

    Raises:
        ValueError: the text is missing, is not that of the training, or has characters outside the vocabulary.
    """
    text, precision = read_eval_text(loaded, *find_eval_text(loaded, config)), choose_precision(loaded, config)
    found = score_text(loaded, text, config, precision)
    score, prefix = found.total(), prefix_of(config)
    if not math.isfinite(score.loss):
        raise ValueError(f"the loss of {loaded.path} in precision={precision} is not a number: try precision=32-true")
    perplexity = float(torch.tensor(score.loss).exp())
    report = {
        "checkpoint": str(loaded.path),
        "step": loaded.step,
        "text": str(text.path),
        "split": text.split,
        "tokens": score.tokens,
        "characters": text.characters,
        f"{prefix}_loss": score.loss,
        f"{prefix}_bpc": bits_per_character(score.loss, text.tokens_per_character),
        f"{prefix}_bpb": float(bits_per_character(score.loss, text.tokens_per_byte)),
        f"{prefix}_perplexity": perplexity if math.isfinite(perplexity) else None,  # JSON has no infinity
        f"{prefix}_accuracy": score.accuracy,
    }
    if config["protocol"] == "random":
        report["standard_error"] = found.standard_error()
    report |= {"calibration_error": found.calibration_error(), "precision": precision}
    if isinstance(loaded.tokenizer, LineTokenizer):
        with inference_precision(precision, loaded.model):
            report |= denoise_eval_lines(loaded, text.lines, config)
    return report | describe_details(found, loaded.tokenizer)


def prefix_of(config: dict[str, Any]) -> str:
    """Return the beginning of the names of the metrics."""
    exact = "train" if config["split"] == TRAIN else "val"
    return PREFIXES.get(config["protocol"], exact)


def choose_precision(loaded: LoadedModel, config: dict[str, Any]) -> str:
    """Return the precision to compute in.

    Raises:
        ValueError: dynamic evaluation is asked for in another than float32 or float64, or the device lacks it.
    """
    typed, device = config["precision"], next(loaded.model.parameters()).device.type
    if config["protocol"] == "dynamic":
        precision = "32-true" if typed is None else resolve_precision(typed, device)
        if precision not in ("32-true", "64-true"):
            raise ValueError(f"precision={typed}: protocol=dynamic trains, in 32-true or 64-true")
        return precision
    return score_precision(loaded.precision, device) if typed is None else resolve_precision(typed, device)


def score_text(loaded: LoadedModel, text: EvalText, config: dict[str, Any], precision: str) -> DetailedScore:
    """Score a text by the protocol of the options.

    Raises:
        ValueError: the text is too short, or the protocol not one for this model.
    """
    protocol, model, objective = config["protocol"], loaded.model, loaded.objective
    vocab_size = loaded.tokenizer.vocab_size
    if protocol != "exact" and isinstance(loaded.tokenizer, LineTokenizer):
        raise ValueError(f"protocol={protocol} is for one text, and {loaded.path} denoises lines: protocol=exact")
    if protocol == "dynamic":
        with inference_precision(precision, model):
            segments = window_batches(loaded, text, config, batch_size=1)
            return dynamic_scores(model, objective, segments, dynamic_update(loaded, text, config), vocab_size)
    batches = exact_batches(loaded, text) if protocol == "exact" else window_batches(loaded, text, config)
    return detailed_scores(model, objective, batches, precision, vocab_size=vocab_size)


def window_batches(
    loaded: LoadedModel, text: EvalText, config: dict[str, Any], batch_size: int | None = None
) -> Iterable[Batch]:
    """Return the windows of the protocols random, sliding and dynamic, see `minigpt.data.window_batches`."""
    block_size, protocol = loaded.text["block_size"], config["protocol"]
    sizes = {"block_size": block_size, "batch_size": batch_size or loaded.val_batch_size}
    if protocol == "random":
        return random_windows(text.tokens, num_windows=config["num_windows"], seed=config["seed"], **sizes)
    default = max(1, block_size // 2) if protocol == "sliding" else block_size
    return sliding_windows(text.tokens, stride=config["stride"] or default, **sizes)


def dynamic_update(loaded: LoadedModel, text: EvalText, config: dict[str, Any]) -> DynamicUpdate:
    """Return the update of dynamic evaluation; the size of gradients is measured on the text of the training.

    Raises:
        ValueError: that text is missing or has changed.
    """
    rms = None
    if config["dynamic_optimizer"] == "rms":
        trained_on = read_eval_text(loaded, find_training_text(loaded, config["paths"]["data_dir"]), TRAIN)
        options = config | {"protocol": "random", "num_windows": RMS_WINDOWS}
        windows = window_batches(loaded, trained_on, options, batch_size=1)
        rms = gradient_rms(loaded.model, loaded.objective, windows)
    return DynamicUpdate(config["dynamic_lr"], config["dynamic_decay"], rms)


def print_results(results: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Print the figures: of one checkpoint as JSON, of several, or with details, as a table, unless `format` says."""
    chosen = config["format"] or ("table" if len(results) > 1 or config["details"] else "json")
    if chosen == "table":
        print(table(results, details=config["details"]))
        return
    hidden = () if config["details"] else DETAILS
    print(to_json([{k: v for k, v in result.items() if k not in hidden} for result in results]))


def to_json(results: list[dict[str, Any]]) -> str:
    """Return one result as a JSON object, several as an array."""
    return json.dumps(results[0] if len(results) == 1 else results, indent=2)
