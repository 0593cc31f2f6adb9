"""The output of evaluate.py and generate.py."""

import json
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch

from minigpt.data.denoising import read_lines
from minigpt.data.text_files import locate
from minigpt.data.tokenizer import LineTokenizer
from minigpt.devices import resolve_precision, score_precision
from minigpt.inference.beam_search import beam_search
from minigpt.inference.denoise_lines import denoise, score_denoising
from minigpt.inference.eval_batches import denoising_model, find_training_text, line_batches, text_batches
from minigpt.inference.load import LoadedModel
from minigpt.inference.precision import float16_matvec, inference_precision
from minigpt.inference.prompt import encode_prompt, read_prompt
from minigpt.inference.sampling import CausalModel, generate
from minigpt.inference.scoring import bits_per_character, evaluate
from minigpt.model.size import check_memory, generation_bytes
from minigpt.runs.commands import generate_command


def evaluate_run(loaded: LoadedModel, config: dict[str, Any]) -> float:
    """Score a model on its validation split or on another text, print the result as JSON, and return the loss.

    Raises:
        ValueError: the text is missing, is not that of the training, or has characters outside the vocabulary.
    """
    path, val_fraction = find_eval_text(loaded, config)
    denoises = isinstance(loaded.tokenizer, LineTokenizer)
    batches, characters = (line_batches if denoises else text_batches)(loaded, path, val_fraction)
    device = next(loaded.model.parameters()).device
    typed = config["precision"]
    precision = (
        score_precision(loaded.precision, device.type) if typed is None else resolve_precision(typed, device.type)
    )
    result = evaluate(loaded.model, loaded.objective, batches, precision)
    if not math.isfinite(result.loss):
        raise ValueError(f"the loss of {loaded.path} in precision={precision} is not a number: try precision=32-true")
    tokens_per_character = 1.0 if denoises else len(batches.tokens) / characters
    perplexity = float(torch.tensor(result.loss).exp())
    report = {
        "checkpoint": str(loaded.path),
        "step": loaded.step,
        "text": str(path),
        "tokens": result.tokens,
        "characters": characters,
        "val_loss": result.loss,
        "val_bpc": bits_per_character(result.loss, tokens_per_character),
        "val_perplexity": perplexity if math.isfinite(perplexity) else None,  # JSON has no infinity
        "val_accuracy": result.accuracy,
        "precision": precision,
    }
    if denoises:
        with inference_precision(precision, loaded.model):
            report |= decode_lines(loaded, path, val_fraction, config)
    print(json.dumps(report, indent=2))
    return result.loss


def find_eval_text(loaded: LoadedModel, config: dict[str, Any]) -> tuple[Path, float]:
    """Return the file of the text to score, and the last part of it that is scored.

    Raises:
        ValueError: the text is missing, or has changed since the training.
    """
    data_dir = config["paths"]["data_dir"]
    if config["eval_text"] is not None:
        return locate(config["eval_text"], data_dir, "eval_text"), 1.0
    try:
        return find_training_text(loaded, data_dir), loaded.text["val_fraction"]
    except ValueError as error:
        raise ValueError(f"{error}, or score another text with eval_text=FILE") from error


def decode_lines(loaded: LoadedModel, path: Path, val_fraction: float, config: dict[str, Any]) -> dict[str, Any]:
    """Denoise the first lines in the last part of a text, and return their scores, see `score_denoising`."""
    model, tokenizer = denoising_model(loaded)
    lines = read_lines(path, val_fraction, loaded.text["block_size"])[1][: config["num_decode_lines"]]
    corrupted = [tokenizer.corrupt(line) for line in lines]
    num_beams = config["num_beams"]
    found = denoise(model, tokenizer, corrupted, num_beams=num_beams, length_penalty=config["length_penalty"])
    return {"num_beams": num_beams} | score_denoising([hypotheses[0] for hypotheses in found], lines)


def generate_text(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the continuations of a prompt, sampled or from beam search; of an encoder-decoder, its denoised lines.

    Raises:
        ValueError: the prompt is empty or has characters outside the vocabulary, more samples are asked for than beam
            search keeps, or the model cannot generate text.
    """
    if not loaded.objective.can_generate:
        name = type(loaded.objective).__name__
        raise ValueError(f"{loaded.path} was trained for {name}, not to continue a text: score it with evaluate.py")
    config = config | {"prompt": read_prompt(config["prompt"], config["prompt_file"])}
    num_beams, denoises = config["num_beams"], isinstance(loaded.tokenizer, LineTokenizer)
    if not config["prompt"].strip("\n" if denoises else ""):
        example = generate_command(config["run"], loaded.text.get("example_prompt"))
        raise ValueError(f"prompt is empty: give at least one character, as in {example}")
    if (num_beams or denoises) and config["num_samples"] > (num_beams or 1):
        raise ValueError(
            f"num_samples={config['num_samples']} of a search: choose num_beams={config['num_samples']} or more"
        )
    if config["stop"] is not None and len(config["stop"]) != 1:
        raise ValueError(f"stop={config['stop']!r} must be one character")
    if not denoises:
        check_generation(loaded, num_beams or config["num_samples"], config["max_new_tokens"])
    show = print_denoised if denoises else print_beams if num_beams else print_samples
    device = next(loaded.model.parameters()).device
    precision = resolve_precision(config["precision"], device.type)
    matvec = float16_matvec(loaded.model) if config["precision"] == "auto" else nullcontext()
    with inference_precision(precision, loaded.model), matvec:
        show(loaded, config)


def check_generation(loaded: LoadedModel, sequences: int, max_new_tokens: int) -> None:
    """Raise ValueError if so many sequences do not fit in memory. A GPU raises an error itself; a machine kills."""
    model = loaded.model
    if sequences == 1 or next(model.parameters()).device.type != "cpu":  # a single one is printed token by token
        return
    sizes = {"block_size": cast(CausalModel, model).block_size, "vocab_size": loaded.tokenizer.vocab_size}
    needed = generation_bytes(model, sequences=sequences, max_new_tokens=max_new_tokens, **sizes)
    advice = "num_samples, num_beams or max_new_tokens"
    check_memory(needed, f"generating {sequences:,} sequences of {max_new_tokens:,} tokens", advice)


def print_denoised(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the most likely lines for each corrupted line of the prompt, best first."""
    model, tokenizer = denoising_model(loaded)
    corrupted = [tokenizer.corrupt(line) for line in config["prompt"].splitlines()]
    options = {"num_beams": config["num_beams"] or 1, "length_penalty": config["length_penalty"]}
    for lines in denoise(model, tokenizer, corrupted, **options):
        print_texts(lines[: config["num_samples"]])


def print_beams(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the most likely continuations of the prompt, best first."""
    model, tokenizer, stop = cast(CausalModel, loaded.model), loaded.tokenizer, config["stop"]
    prompt = encode_prompt(loaded, config["prompt"])
    found, _ = beam_search(
        model,
        model.make_cache(),
        prompt[None],
        block_size=model.block_size,
        num_beams=config["num_beams"],
        length_penalty=config["length_penalty"],
        max_new_tokens=config["max_new_tokens"],
        stop_token=None if stop is None else encode_stop(loaded, stop),
    )
    texts = [tokenizer.decode(ids) for ids in found[0, : config["num_samples"]].tolist()]
    print_texts([config["prompt"] + (text if stop is None else "".join(text.partition(stop)[:2])) for text in texts])


def print_samples(loaded: LoadedModel, config: dict[str, Any]) -> None:
    """Print the prompt and its continuation, token by token. Several samples are printed when all are complete."""
    tokenizer, count = loaded.tokenizer, config["num_samples"]
    prompt = encode_prompt(loaded, config["prompt"])
    tokens = generate(
        loaded.model,
        prompt.expand(count, -1),
        max_new_tokens=config["max_new_tokens"],
        temperature=config["temperature"],
        top_k=config["top_k"],
        top_p=config["top_p"],
        generator=torch.Generator(prompt.device).manual_seed(config["seed"]),
    )
    if count > 1:
        samples = torch.stack(list(tokens), dim=1).tolist()
        print_texts([config["prompt"] + tokenizer.decode(sample) for sample in samples])
        return
    print(config["prompt"], end="", flush=True)
    for text in tokenizer.stream(int(token) for token in tokens):
        print(text, end="", flush=True)
    print()


def encode_stop(loaded: LoadedModel, stop: str) -> int:
    """Return the token id of the character that ends a hypothesis.

    Raises:
        ValueError: the tokenizer has several tokens for it.
    """
    tokens = loaded.tokenizer.encode(stop).tolist()
    if len(tokens) != 1:
        raise ValueError(f"stop={stop!r} is {len(tokens)} tokens of this model: choose a character that is one")
    return tokens[0]


def print_texts(texts: list[str]) -> None:
    """Print one text as it is, several with numbers."""
    for number, text in enumerate(texts, start=1):
        print(text if len(texts) == 1 else f"--- {number}\n{text}")
