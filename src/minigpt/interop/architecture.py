"""What the architectures of Hugging Face have in common: a config.json, and other names of the weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from minigpt.model.embeddings import TokenEmbedding
from minigpt.model.gpt import GPT, Block

Config = dict[str, Any]


@dataclass(frozen=True)
class Weight:
    """One of our weights, and those that stand for it in transformers.

    Attributes:
        ours: its name in a `GPT`.
        theirs: the names there; several when ours is their concatenation.
        rows: rows of each of several.
        transposed: whether theirs is stored as [in, out].
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    transposed: bool = False


class Architecture(ABC):
    """An architecture that transformers and miniGPT both have.

    Attributes:
        model_type: its name in a config.json.
        class_name: the class of transformers.
        embedding_name: the name of the token embedding's matrix there.
        tied_by_default: whether the head is tied to it where config.json does not say so.
    """

    model_type: ClassVar[str]
    class_name: ClassVar[str]
    embedding_name: ClassVar[str]
    tied_by_default: ClassVar[bool]

    @abstractmethod
    def sizes(self, model: GPT) -> Config | None:
        """Return the entries of config.json that differ between models; None for another architecture."""

    @abstractmethod
    def options(self, config: Config) -> dict[str, Any]:
        """Return the options of the `GPT` that a config.json describes, with a `_target_` for each component.

        Raises:
            ValueError: it needs what a `GPT` lacks.
        """

    @abstractmethod
    def weights(self, config: Config) -> Iterator[Weight]:
        """Yield the weights of a model, in the order of its layers."""

    def config(self, model: nn.Module) -> Config | None:
        """Return the content of config.json; None for a model of another architecture."""
        is_plain = type(model) is GPT and type(model.embedding) is TokenEmbedding and type(model.blocks[0]) is Block
        if not is_plain or not isinstance(model, GPT) or isinstance(model.norm, nn.Identity):
            return None
        sizes = self.sizes(model)
        if sizes is None:
            return None
        tied = model.head.weight is model.embedding.weight
        common = {"architectures": [self.class_name], "model_type": self.model_type, "vocab_size": model.vocab_size}
        ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
        return common | sizes | ids | {"tie_word_embeddings": tied, "dtype": "float32"}

    def full_name(self, name: str) -> str:
        """Return the name of a weight as the model with a head has it."""
        return name

    def export_weights(self, weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
        """Return the weights of a `GPT` by their names in transformers; what a `GPT` may lack has no effect there."""
        found: dict[str, Tensor] = {}
        for weight in self.weights(config):
            if config["tie_word_embeddings"] and weight.ours == "head.weight":
                continue
            tensor = weights[weight.ours] if weight.ours in weights else neutral(weight.ours, weights)
            parts = tensor.split(weight.rows) if weight.rows else (tensor,)
            for name, part in zip(weight.theirs, parts, strict=True):
                found[name] = (part.T if weight.transposed else part).clone(memory_format=torch.contiguous_format)
        return found

    def import_weights(self, weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
        """Return weights of transformers by their names in a `GPT`.

        Raises:
            ValueError: there is one that the architecture lacks, or lacks one.
        """
        remaining = {self.full_name(name): weight for name, weight in weights.items()}
        if config["tie_word_embeddings"]:
            remaining["lm_head.weight"] = remaining.get(self.embedding_name, torch.empty(0))
        found = {}
        for weight in self.weights(config):
            if missing := [name for name in weight.theirs if name not in remaining]:
                raise ValueError(f"it has no weight {missing[0]}")
            parts = [remaining.pop(name).float() for name in weight.theirs]
            tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
            found[weight.ours] = tensor.T.contiguous() if weight.transposed else tensor
        if remaining:
            raise ValueError(f"{len(remaining)} weights belong to no part of the model, the first is {min(remaining)}")
        return found


def neutral(name: str, weights: Mapping[str, Tensor]) -> Tensor:
    """Return what has no effect in place of a weight that a `GPT` lacks: zeros for a bias, ones for a norm's weight."""
    dim = weights["embedding.weight"].shape[1]
    if not name.endswith(".bias"):
        return torch.ones(dim)
    matrix = weights.get(name.replace(".bias", ".weight"))
    return torch.zeros(dim if matrix is None else matrix.shape[0])


def drop_neutral(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without those that a model lacks and that have no effect, see `neutral`."""
    return {
        name: weight
        for name, weight in weights.items()
        if name in expected or not torch.equal(weight, torch.full_like(weight, float(not name.endswith(".bias"))))
    }


def component(cls: type, **options: Any) -> dict[str, Any]:
    """Return the node of a component in a configuration."""
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", "_partial_": True, **options}


def positive(config: Config, key: str, default: int | None = None) -> int:
    """Return a size of a config.json.

    Raises:
        ValueError: it is not a positive integer.
    """
    value = default if config.get(key) is None else config[key]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ValueError(f"config.json: {key} must be a positive integer, not {value!r}")
    return value


def refuse_others(config: Config, wanted: Mapping[str, Any]) -> None:
    """Raise ValueError for the first entry of a config.json that is present and is not the only value that works."""
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise ValueError(f"config.json: {key}={config[key]!r} is not supported, only {value!r}")
