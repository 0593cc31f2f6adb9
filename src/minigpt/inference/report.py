"""What evaluate.py and generate.py print."""

import json
from pathlib import Path
from typing import Any

import torch

from minigpt.data.corpus import file_hash, find_text, open_corpus, read_text
from minigpt.data.datamodule import ValidationStream
from minigpt.inference.load import Trained
from minigpt.inference.precision import resolve_precision
from minigpt.inference.sampling import generate
from minigpt.inference.scoring import bits_per_character, evaluate


def evaluate_run(trained: Trained, config: dict[str, Any]) -> float:
    """Print the exact loss of a trained model on its validation split, or on another text, as one JSON object.

    Raises:
        ValueError: the text is not there, is not the one of the training, or has characters the model does not know.
    """
    text = trained.text
    if config["text"] is not None:
        path = find_text(config["text"], config["paths"]["data_dir"])
        tokens = trained.tokenizer.encode("".join(read_text(path)))
        if len(tokens) < 2:
            raise ValueError(f"{path} is too short to be scored")
    else:
        try:
            path = find_text(text["path"], config["paths"]["data_dir"])
        except ValueError as error:
            advice = "name its folder with paths.data_dir=..., or score another text with text=FILE"
            raise ValueError(f"the text of the training, {text['path']}, is not here: {advice}") from error
        if file_hash(path) != text["sha256"]:
            raise ValueError(f"{path} has changed since the training: score it as another text with text={path}")
        tokens = open_corpus(path, Path(config["paths"]["data_dir"]) / "cache", text["val_fraction"]).val
    model = trained.model
    device = next(model.parameters()).device
    precision = resolve_precision(config["precision"] or trained.precision, device.type)
    batches = ValidationStream(tokens, block_size=text["block_size"], batch_size=text["val_batch_size"])
    result = evaluate(model, trained.objective, batches, precision)
    report = {
        "checkpoint": str(trained.path),
        "step": trained.step,
        "text": str(path),
        "tokens": result.tokens,
        "val_loss": result.loss,
        "val_bpc": bits_per_character(result.loss, 1.0),
        "val_perplexity": float(torch.tensor(result.loss).exp()),
        "val_accuracy": result.accuracy,
        "precision": precision,
    }
    print(json.dumps(report, indent=2))
    return result.loss


def stream_text(trained: Trained, config: dict[str, Any]) -> None:
    """Print the prompt and what the model makes of it, token by token; several samples at their end, as one batch.

    Raises:
        ValueError: the prompt is empty or has characters that the model does not know, or the model fills gaps alone.
    """
    if not trained.objective.generates:
        name = type(trained.objective).__name__
        raise ValueError(f"{trained.path} was trained for {name}, not to go on with a text: score it with evaluate.py")
    tokenizer = trained.tokenizer
    if not config["prompt"]:
        raise ValueError("prompt is empty: give at least one character, such as prompt='ROMEO:'")
    device = next(trained.model.parameters()).device
    prompt = torch.from_numpy(tokenizer.encode(config["prompt"]).astype("int64")).to(device)
    count = config["num_samples"]
    drawn = generate(
        trained.model,
        prompt.expand(count, -1),
        max_new_tokens=config["max_new_tokens"],
        temperature=config["temperature"],
        top_k=config["top_k"],
        top_p=config["top_p"],
        generator=torch.Generator(device).manual_seed(config["seed"]),
    )
    if count > 1:
        for number, sample in enumerate(torch.stack(list(drawn), dim=1).tolist(), start=1):
            print(f"--- {number}\n{config['prompt']}{tokenizer.decode(sample)}")
        return
    print(config["prompt"], end="", flush=True)
    for token in drawn:
        print(tokenizer.decode([token.item()]), end="", flush=True)
    print()
