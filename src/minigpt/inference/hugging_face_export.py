"""Export a trained model to a folder that Hugging Face's transformers loads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from minigpt.atomic_file import atomic_folder, atomic_write
from minigpt.inference.load import LoadedModel
from minigpt.inference.model_card import model_card
from minigpt.inference.safetensors_export import check_target, export_metadata
from minigpt.interop.custom_code import code_files, custom_config
from minigpt.interop.registry import find_architecture

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Translation:
    """A model in the terms of transformers.

    Attributes:
        config: the content of config.json.
        weights: the weights by their names there.
        code: Python files of the folder, none for an architecture that transformers has.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    code: dict[str, str]


def export_folder(loaded: LoadedModel, output: str) -> None:
    """Write a model to a new folder, and print how to use it.

    GPT-2, Llama and Mixtral become the classes of transformers; the folder of any other model has a copy of its code.

    Raises:
        ValueError: the folder exists, or cannot be made, or the model does not continue a text.
        OSError: it cannot be written.
    """
    if not loaded.objective.can_generate:
        kind = type(loaded.objective).__name__
        raise ValueError(
            f"a folder for transformers holds a model that continues a text, not one of {kind}: use "
            f"output={output}.safetensors"
        )
    target = Path(output)
    check_target(target, output)
    translation = translate(loaded)
    library = loaded.tokenizer.to_library()
    block_size = int(loaded.metadata["model"]["block_size"])
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    generation = {"do_sample": True, "max_length": block_size}
    generation |= {"use_cache": False} if translation.code else {}
    files = {
        "config.json": translation.config,
        "tokenizer_config.json": tokenizer,
        "generation_config.json": generation,
    }
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in files.items()}
    texts |= {"README.md": model_card(loaded, translation.config, target.name), **translation.code}
    with atomic_folder(target) as folder:
        for name, text in texts.items():
            (folder / name).write_text(text, "utf-8")
        library.save(str(folder / "tokenizer.json"))
        with atomic_write(folder / WEIGHTS) as temporary:  # with the permissions of the other files
            save_file(translation.weights, temporary, {"format": "pt"} | export_metadata(loaded))
    print(f"{target}/  {', '.join(sorted(p.name for p in target.iterdir()))}")
    print(
        f"load      AutoModelForCausalLM.from_pretrained({str(target)!r}"
        f"{', trust_remote_code=True' if translation.code else ''})"
    )


def translate(loaded: LoadedModel) -> Translation:
    """Return a model in the terms of transformers.

    Raises:
        ValueError: it has components from outside miniGPT.
    """
    weights = loaded.model.state_dict()
    found = find_architecture(loaded.model)
    if found is not None:
        architecture, config = found
        return Translation(config, architecture.export_weights(weights, config), {})
    tied = bool(loaded.metadata["model"].get("tie_head"))
    if tied:
        weights.pop("head.weight", None)
    vocab_size = loaded.tokenizer.vocab_size + loaded.objective.num_special_tokens
    config = custom_config(loaded.metadata["model"], vocab_size=vocab_size, tied=tied)
    copies = {f"model.{name}": tensor.clone() for name, tensor in weights.items()}
    return Translation(config, copies, code_files(loaded.metadata["model"]))
