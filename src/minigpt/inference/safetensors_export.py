"""Export a trained model to one safetensors file, a format that holds nothing but tensors and text."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from minigpt.atomic_file import atomic_write
from minigpt.inference.load import LoadedModel
from minigpt.runs.commands import generate_command


def export_safetensors(loaded: LoadedModel, output: str) -> None:
    """Write weights, tokenizer and metadata of a model to a new file, and print how to use it.

    Raises:
        ValueError: the file exists, or its folder does not or is full.
        OSError: it cannot be written.
    """
    target = Path(output)
    check_target(target, output)
    weights = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}  # unties tied weights
    try:
        with atomic_write(target) as temporary:
            save_file(weights, temporary, export_metadata(loaded))
    except SafetensorError as error:
        raise ValueError(f"{target} cannot be written: {error}") from error
    print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
    if loaded.objective.can_generate:
        print(f"generate  {generate_command(target, loaded.text.get('example_prompt'))}")


def check_target(target: Path, output: str) -> None:
    """Raise ValueError if `target` exists, or the folder that it would be in does not."""
    if target.exists():
        raise ValueError(f"{target} exists already: name another one with output=...")
    if not target.parent.is_dir():
        raise ValueError(f"there is no folder {target.parent} for output={output}: make it first")


def export_metadata(loaded: LoadedModel) -> dict[str, str]:
    """Return the metadata of a safetensors file, from which `minigpt.inference.load` rebuilds the model."""
    # The settings of the run (fingerprint) are of no use without its optimizer state.
    metadata = {k: v for k, v in loaded.metadata.items() if k != "fingerprint"}
    return {"minigpt": json.dumps(metadata | {"step": loaded.step})}
