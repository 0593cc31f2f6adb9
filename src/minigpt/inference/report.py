"""What evaluate.py and generate.py print."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.data.corpus import encode_part, file_hash, find_text, split_text
from minigpt.data.restore import PairValidationStream, read_lines
from minigpt.data.streams import ValidationStream
from minigpt.data.tokenizer import LineTokenizer
from minigpt.inference.beam_search import beam_search
from minigpt.inference.load import Trained
from minigpt.inference.precision import computing_in, reading_rows_fast, resolve_precision
from minigpt.inference.restoring import restore, score_restoration
from minigpt.inference.sampling import generate
from minigpt.inference.scoring import bits_per_character, evaluate


def evaluate_run(trained: Trained, config: dict[str, Any]) -> float:
    """Print the exact loss of a trained model on its validation split, or on another text, as one JSON object.

    Raises:
        ValueError: the text is not there, is not the one of the training, or has characters the model does not know.
    """
    path, val_fraction = find_scored(trained, config)
    restores = isinstance(trained.tokenizer, LineTokenizer)
    batches, characters = (line_batches if restores else text_batches)(trained, path, val_fraction)
    device = next(trained.model.parameters()).device
    precision = resolve_precision(config["precision"] or trained.precision, device.type)
    result = evaluate(trained.model, trained.objective, batches, precision)
    ratio = 1.0 if restores else len(batches.tokens) / characters
    report = {
        "checkpoint": str(trained.path),
        "step": trained.step,
        "text": str(path),
        "tokens": result.tokens,
        "characters": characters,
        "val_loss": result.loss,
        "val_bpc": bits_per_character(result.loss, ratio),
        "val_perplexity": float(torch.tensor(result.loss).exp()),
        "val_accuracy": result.accuracy,
        "precision": precision,
    }
    if restores:
        with computing_in(precision, trained.model):
            report |= decode_lines(trained, path, val_fraction, config)
    print(json.dumps(report, indent=2))
    return result.loss


def find_scored(trained: Trained, config: dict[str, Any]) -> tuple[Path, float]:
    """The text to score, and which last part of it.

    Raises:
        ValueError: it is not there, or not as it was at the training.
    """
    text, data_dir = trained.text, config["paths"]["data_dir"]
    if config["text"] is not None:
        return find_text(config["text"], data_dir), 1.0
    try:
        path = find_text(text["path"], data_dir)
    except ValueError as error:
        advice = "name its folder with paths.data_dir=..., or score another text with text=FILE"
        raise ValueError(f"the text of the training, {text['path']}, is not here: {advice}") from error
    if file_hash(path) != text["sha256"]:
        raise ValueError(f"{path} has changed since the training: score it as another text with text={path}")
    return path, text["val_fraction"]


def text_batches(trained: Trained, path: Path, val_fraction: float) -> tuple[ValidationStream, int]:
    """The last part of a text as rows to predict, and how many characters it has.

    Raises:
        ValueError: it is too short, or has characters that the model does not know.
    """
    start = split_text(path, val_fraction)[1] if val_fraction < 1 else 0
    tokens, characters = encode_part(trained.tokenizer, path, start)
    if len(tokens) < 2:
        raise ValueError(f"{path} is too short to be scored")
    size = {"block_size": trained.text["block_size"], "batch_size": trained.text["val_batch_size"]}
    return ValidationStream(tokens, **size), characters


def line_batches(trained: Trained, path: Path, val_fraction: float) -> tuple[PairValidationStream, int]:
    """The same for a model that restores lines."""
    tokenizer, block_size = trained.tokenizer, trained.text["block_size"]
    _, lines = read_lines(path, val_fraction, block_size)
    if not lines:
        raise ValueError(f"{path} has no line to be restored")
    pairs = tokenizer.encode_pairs(lines, block_size)
    stream = PairValidationStream(pairs, tokenizer, batch_size=trained.text["val_batch_size"])
    return stream, sum(map(len, lines))


def decode_lines(trained: Trained, path: Path, val_fraction: float, config: dict[str, Any]) -> dict[str, Any]:
    """How well the first lines of the last part of a text are restored, see `score_restoration`."""
    tokenizer = trained.tokenizer
    lines = read_lines(path, val_fraction, trained.text["block_size"])[1][: config["decode_lines"]]
    damaged = [tokenizer.damage(line) for line in lines]
    beam, length_penalty = config["beam"], config["length_penalty"]
    found = restore(trained.model, tokenizer, damaged, beam=beam, length_penalty=length_penalty)
    return {"beam": beam} | score_restoration([best[0] for best in found], lines)


def write(trained: Trained, config: dict[str, Any]) -> None:
    """Print what a model makes of a prompt: its lines restored, the likeliest continuations, or some that are drawn.

    Raises:
        ValueError: the prompt is empty or has characters that the model does not know, or more samples are asked for
            than are searched for, or the model fills gaps alone.
    """
    if not trained.objective.generates:
        name = type(trained.objective).__name__
        raise ValueError(f"{trained.path} was trained for {name}, not to go on with a text: score it with evaluate.py")
    beam, restores = config["beam"], isinstance(trained.tokenizer, LineTokenizer)
    if not config["prompt"].strip("\n" if restores else ""):
        example = "'thequalityofmercy'" if restores else "'ROMEO:'"
        raise ValueError(f"prompt is empty: give at least one character, such as prompt={example}")
    if (beam or restores) and config["num_samples"] > (beam or 1):
        raise ValueError(
            f"num_samples={config['num_samples']} of a search: choose beam={config['num_samples']} or more"
        )
    if config["end"] is not None and len(config["end"]) != 1:
        raise ValueError(f"end={config['end']!r} must be one character")
    show = print_restored if restores else print_likeliest if beam else stream_text
    device = next(trained.model.parameters()).device
    precision = resolve_precision(config["precision"], device.type)
    fast_rows = reading_rows_fast(trained.model) if config["precision"] == "auto" else nullcontext()
    with computing_in(precision, trained.model), fast_rows:
        show(trained, config)


def print_restored(trained: Trained, config: dict[str, Any]) -> None:
    """Print the likeliest whole lines for each damaged line of the prompt, best first."""
    damaged = [trained.tokenizer.damage(line) for line in config["prompt"].splitlines()]
    options = {"beam": config["beam"] or 1, "length_penalty": config["length_penalty"]}
    for lines in restore(trained.model, trained.tokenizer, damaged, **options):
        print_samples(lines[: config["num_samples"]])


def print_likeliest(trained: Trained, config: dict[str, Any]) -> None:
    """Print the likeliest continuations of the prompt, best first."""
    model, tokenizer, end = trained.model, trained.tokenizer, config["end"]
    prompt = encode_prompt(trained, config["prompt"])
    found, _ = beam_search(
        model,
        model.make_cache(),
        prompt[None],
        block_size=model.block_size,
        beam=config["beam"],
        length_penalty=config["length_penalty"],
        max_new_tokens=config["max_new_tokens"],
        end=None if end is None else encode_prompt(trained, end).item(),
    )
    texts = [tokenizer.decode(ids) for ids in found[0, : config["num_samples"]].tolist()]
    print_samples([config["prompt"] + (text if end is None else "".join(text.partition(end)[:2])) for text in texts])


def encode_prompt(trained: Trained, prompt: str) -> Tensor:
    """Token ids [T] of a prompt, on the model's device."""
    device = next(trained.model.parameters()).device
    return torch.from_numpy(trained.tokenizer.encode(prompt).astype("int64")).to(device)


def print_samples(texts: list[str]) -> None:
    """Print one text, or several with their numbers."""
    for number, text in enumerate(texts, start=1):
        print(text if len(texts) == 1 else f"--- {number}\n{text}")


def stream_text(trained: Trained, config: dict[str, Any]) -> None:
    """Print the prompt and what the model makes of it, token by token; several samples at their end, as one batch."""
    tokenizer, count = trained.tokenizer, config["num_samples"]
    prompt = encode_prompt(trained, config["prompt"])
    drawn = generate(
        trained.model,
        prompt.expand(count, -1),
        max_new_tokens=config["max_new_tokens"],
        temperature=config["temperature"],
        top_k=config["top_k"],
        top_p=config["top_p"],
        generator=torch.Generator(prompt.device).manual_seed(config["seed"]),
    )
    if count > 1:
        samples = torch.stack(list(drawn), dim=1).tolist()
        print_samples([config["prompt"] + tokenizer.decode(sample) for sample in samples])
        return
    print(config["prompt"], end="", flush=True)
    for text in tokenizer.stream(token.item() for token in drawn):
        print(text, end="", flush=True)
    print()
