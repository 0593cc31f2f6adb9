"""The metadata of a checkpoint, held against the signatures of what it is used for."""

from dataclasses import dataclass, field
from typing import Any

from minigpt.bounds import NonNegativeInt, PositiveInt, Precision, ValFraction
from minigpt.config.check import check_components, check_options
from minigpt.data.tokenizer import KINDS
from minigpt.runs.untrusted import check_mapping


@dataclass
class Metadata:
    """The entries of a checkpoint's metadata, see `minigpt.training.module.checkpoint_metadata`."""

    model: dict[str, Any]
    objective: dict[str, Any]
    tokenizer: dict[str, Any]
    text: dict[str, Any]
    precision: Precision
    step: NonNegativeInt
    fingerprint: dict[str, Any] = field(default_factory=dict)


@dataclass
class Text:
    """The text that a model was trained on."""

    path: str
    sha256: str
    val_fraction: ValFraction
    val_batch_size: PositiveInt
    block_size: PositiveInt
    example_prompt: str = ""


def check_metadata(metadata: Any) -> dict[str, Any]:
    """Return the metadata of a checkpoint, which may hold anything, if it has the entries and the types above.

    Raises:
        ValueError: it does not.
    """
    metadata = check_mapping(metadata, "its metadata")
    check_options("", metadata, f"{__name__}.Metadata", {})
    check_options("text.", metadata["text"], f"{__name__}.Text", {})
    options = dict(metadata["tokenizer"])
    if (kind := options.pop("kind", None)) in KINDS:  # `load_tokenizer` refuses any other
        check_options("tokenizer.", options, f"{KINDS[kind].__module__}.{KINDS[kind].__qualname__}", {})
    return metadata


def check_component_options(metadata: dict[str, Any]) -> None:
    """Raise ValueError for an option of the model or the objective that their constructors do not take."""
    check_components({name: metadata[name] for name in ("model", "objective")})
