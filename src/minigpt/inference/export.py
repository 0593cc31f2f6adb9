"""A trained model as one safetensors file: a format that can hold nothing but tensors and text."""

import json
import os
from pathlib import Path

from safetensors.torch import save_file

from minigpt.inference.load import Trained


def export_safetensors(trained: Trained, to: str) -> None:
    """Write weights, tokenizer and description to a new file, and say how to use it.

    Raises:
        ValueError: the file exists, or is not named `*.safetensors`.
    """
    target = Path(to)
    if target.suffix != ".safetensors":
        raise ValueError(f"to={to} must end in .safetensors")
    if target.exists():
        raise ValueError(f"{target} exists already: name another file with to=...")
    # The run's own settings (fingerprint) are of no use without its optimizer state.
    description = {k: v for k, v in trained.description.items() if k != "fingerprint"}
    weights = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}  # tied ones apart
    temporary = target.with_name(f".{target.name}")
    try:
        save_file(weights, temporary, {"minigpt": json.dumps(description | {"step": trained.step})})
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
    if trained.objective.generates:
        print(f'generate  python src/generate.py run={target} prompt="ROMEO:"')
