"""A copy of the code of a model, with which transformers loads it from its folder alone."""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minigpt.model.components import COMPONENTS

WRAPPER = "minigpt.interop.modeling_minigpt"
OWN_IMPORT = re.compile(r"^from minigpt(?:\.\w+)*\.(\w+) import ", re.MULTILINE)


def custom_config(options: Mapping[str, Any], *, vocab_size: int, tied: bool) -> dict[str, Any]:
    """Return the content of config.json for a model with these options, see `MiniGPTConfig`.

    Raises:
        ValueError: a component is not one of `minigpt.model`.
    """
    for target in targets(options):
        if target not in COMPONENTS:
            raise ValueError(f"{target} is no part of miniGPT, whose code alone is copied: use output=NAME.safetensors")
    file = WRAPPER.rpartition(".")[2]
    return {
        "architectures": ["MiniGPTForCausalLM"],
        "model_type": "minigpt",
        "auto_map": {
            "AutoConfig": f"{file}.MiniGPTConfig",
            "AutoModelForCausalLM": f"{file}.MiniGPTForCausalLM",
        },
        "components": dict(options),
        "vocab_size": vocab_size,
        "max_position_embeddings": options["block_size"],
        "tie_word_embeddings": tied,
        "dtype": "float32",
    }


def code_files(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the Python files of a model's folder by their names: its components, all that they import, the wrapper."""
    classes = sorted({tuple(target.rsplit(".", 1)) for target in targets(options)})
    imports = [f"from {module} import {name}" for module, name in classes]
    table = [f'    "{module}.{name}": {name},' for module, name in classes]
    components = ['"""The components of this model."""', "", *imports, "", "COMPONENTS = {", *table, "}", ""]
    sources = {"components": "\n".join(components)}
    waiting = [WRAPPER, *(module for module, _ in classes)]
    while waiting:
        module = waiting.pop()
        name = module.rpartition(".")[2]
        if name not in sources:
            spec = find_spec(module)
            assert spec is not None and spec.origin is not None
            sources[name] = Path(spec.origin).read_text("utf-8")
        waiting += [m for m in imported_modules(sources[name]) if m.rpartition(".")[2] not in sources]
    header = "# Copied from miniGPT, MIT License.\n"
    return {f"{name}.py": header + OWN_IMPORT.sub(r"from .\1 import ", text) for name, text in sources.items()}


def targets(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield each `_target_` of nested options."""
    yield str(node["_target_"])
    for value in node.values():
        if isinstance(value, Mapping):
            yield from targets(value)


def imported_modules(source: str) -> list[str]:
    """Return the modules of this project that a source imports."""
    return [match[0].split()[1] for match in OWN_IMPORT.finditer(source)]
