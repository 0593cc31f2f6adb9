"""The model card of an exported folder: what the checkpoint and its run's summary say, and how to use it."""

from pathlib import Path
from typing import Any

from minigpt.inference.load import LoadedModel
from minigpt.model.size import count_parameters
from minigpt.runs.directory import CHECKPOINTS
from minigpt.runs.summary import read_summary

TEMPLATE = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- minigpt
---
# {name}

A language model trained from scratch with miniGPT.

| | |
|---|---|
{rows}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}"{trust})
model = AutoModelForCausalLM.from_pretrained("{name}"{trust})
inputs = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0]))
```
{note}"""
CODE_NOTE = """
transformers has no such architecture: the folder has a copy of the model's code, which needs torch, transformers and
annotated-types. It keeps no key-value cache and reads no padding before a text.
"""


def model_card(loaded: LoadedModel, config: dict[str, Any], name: str) -> str:
    """Return the text of a folder's README.md.

    Args:
        loaded: the model.
        config: the content of config.json.
        name: of the folder.
    """
    is_custom = "auto_map" in config
    text, tokenizer, count = loaded.text, loaded.tokenizer, loaded.num_averaged
    facts = {
        "architecture": f"`{config['architectures'][0]}`" + (", code in this folder" if is_custom else ""),
        "parameters": f"{count_parameters(loaded.model):,}",
        "context": f"{loaded.metadata['model']['block_size']:,} tokens",
        "tokenizer": f"{tokenizer.kind}, {tokenizer.vocab_size:,} tokens",
        "text": f"{one_line(Path(text['path']).name)}, SHA-256 {one_line(text['sha256'])}",
        "optimizer steps": f"{loaded.step:,}" + (f", the mean of {count} checkpoints" if count > 1 else ""),
        "precision of the training": loaded.precision,
    } | measured(loaded)
    return TEMPLATE.format(
        name=name,
        rows="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
        prompt=one_line(text.get("example_prompt") or "The"),
        trust=", trust_remote_code=True" if is_custom else "",
        note=CODE_NOTE if is_custom else "",
    )


def measured(loaded: LoadedModel) -> dict[str, str]:
    """Return the validation figures of this very checkpoint, as its run's summary has them; none of any other."""
    folder = loaded.path.parent
    is_of_run = folder.name == CHECKPOINTS and loaded.num_averaged == 1
    summary = (read_summary(folder.parent) or {}) if is_of_run else {}
    best = "_best" if loaded.step == summary.get("val_loss_best_step") else ""
    if not best and loaded.step != summary.get("steps"):
        return {}
    rows = {
        "validation loss": (f"val_loss{best}", "nats per token"),
        "the same": (f"val_bpc{best}", "bits per character"),
    }
    present = {name: (summary.get(key), unit) for name, (key, unit) in rows.items()}
    return {name: f"{value:.4f} {unit}" for name, (value, unit) in present.items() if isinstance(value, int | float)}


def one_line(text: object) -> str:
    """Return the printable characters of a text, which may be anybody's, without those with a meaning in a table."""
    return "".join(c for c in str(text) if c.isprintable() and c not in "|<>`")
