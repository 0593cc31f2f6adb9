"""The architectures of transformers that miniGPT has too."""

from torch import nn

from minigpt.interop.architecture import Architecture, Config
from minigpt.interop.gpt2 import GPT2
from minigpt.interop.llama import Llama, Mixtral

ARCHITECTURES = {architecture.model_type: architecture for architecture in (GPT2(), Llama(), Mixtral())}


def find_architecture(model: nn.Module) -> tuple[Architecture, Config] | None:
    """Return the architecture of a model, and the content of its config.json; None where transformers has none."""
    for architecture in ARCHITECTURES.values():
        if (config := architecture.config(model)) is not None:
            return architecture, config
    return None
