"""Read a folder of Hugging Face's transformers. Nothing in it is executed, and no pickle is opened."""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from minigpt.data.tokenizer.pretrained import PretrainedTokenizer
from minigpt.interop.registry import ARCHITECTURES
from minigpt.model.objectives import NextToken
from minigpt.runs.directory import CONFIG
from minigpt.runs.untrusted import check_regular, read_json, read_text

MODEL_CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
NOT_LEARNED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # constants that older files hold
# What a folder by others does not say; one of ours has it in the metadata of its weights.
TEXT = {"path": "unknown", "sha256": "unknown", "val_fraction": 0.1, "val_batch_size": 16}


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of transformers, and no run directory."""
    return path.is_dir() and (path / MODEL_CONFIG).exists() and not (path / CONFIG).exists()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata of a checkpoint and the weights by our names, for `minigpt.inference.load.load_model`.

    A folder that `minigpt.inference.hugging_face_export` wrote has the metadata itself.

    Raises:
        ValueError: it has another architecture, a tokenizer that is not lossless, or weights in another format.
    """
    config = read_json(folder / MODEL_CONFIG)
    model_type = config.get("model_type")
    architecture = ARCHITECTURES.get(str(model_type))
    if architecture is None and model_type != "minigpt":
        known = ", ".join([*ARCHITECTURES, "minigpt"])
        raise ValueError(f"{MODEL_CONFIG}: model_type={model_type!r} is not supported, only {known}")
    if not (folder / WEIGHTS).exists():
        raise ValueError(f"it has no {WEIGHTS}, whole and in one file: save it so by transformers")
    check_regular(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        own = json.loads((file.metadata() or {}).get("minigpt", "null"))
    weights = {name: w for name, w in load_file(folder / WEIGHTS).items() if not name.endswith(NOT_LEARNED)}
    if architecture is None:
        options = config.get("components")
        weights = {name.removeprefix("model."): weight for name, weight in weights.items()}
        if config.get("tie_word_embeddings") and "embedding.weight" in weights:
            weights["head.weight"] = weights["embedding.weight"]
    else:
        config.setdefault("tie_word_embeddings", architecture.tied_by_default)
        options = architecture.options(config)
        weights = architecture.import_weights(weights, config)
    return own or foreign_metadata(folder, options), weights


def foreign_metadata(folder: Path, options: Any) -> dict[str, Any]:
    """Return the metadata of a model by others: its options, its tokenizer, and no training text.

    Raises:
        ValueError: there is no tokenizer, or none that is lossless.
    """
    if not (folder / TOKENIZER).exists():
        raise ValueError(f"it has no {TOKENIZER}: save its tokenizer by transformers, as AutoTokenizer loads it")
    if not isinstance(options, dict):
        raise ValueError(f"{MODEL_CONFIG} does not say what the model is")
    return {
        "model": options,
        "objective": {"_target_": f"{NextToken.__module__}.{NextToken.__qualname__}"},
        "tokenizer": {"kind": PretrainedTokenizer.kind, "definition": read_text(folder / TOKENIZER)},
        "text": TEXT | {"block_size": options.get("block_size", 1)},
        "precision": "32-true",
        "step": 0,
    }
