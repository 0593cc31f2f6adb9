"""Load a trained model and its tokenizer. Nothing in a checkpoint is executed."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from minigpt.data.tokenizer import LineTokenizer, Tokenizer, load_tokenizer
from minigpt.devices import find_device
from minigpt.inference.hugging_face_import import is_folder, read_folder
from minigpt.inference.metadata import check_component_options, check_metadata
from minigpt.inference.wandb_model import PREFIX, download_checkpoint
from minigpt.interop.architecture import drop_neutral
from minigpt.model.assembly import assemble
from minigpt.model.components import COMPONENTS
from minigpt.model.lora import merge_lora
from minigpt.model.objectives import Objective
from minigpt.model.size import build_on_meta, check_model_memory
from minigpt.runs.checkpoint_content import check_weights
from minigpt.runs.checkpoint_io import load_checkpoint
from minigpt.runs.directory import find_checkpoint, step_checkpoints
from minigpt.runs.untrusted import check_mapping, check_regular, first_line

MAX_TOKENS_PER_BATCH = 1 << 16  # four times as many as training validates at once by default


@dataclass(frozen=True)
class LoadedModel:
    """A model loaded from a checkpoint, with its objective, tokenizer and metadata.

    Attributes:
        path: the file that it was loaded from.
        model: the model, in evaluation mode.
        objective: the objective that it was trained for.
        tokenizer: the tokenizer of its text.
        step: optimizer steps that it was trained for.
        metadata: plain data of the checkpoint, see `minigpt.training.module.checkpoint_metadata`.
        num_averaged: number of checkpoints whose weights were averaged.
    """

    path: Path
    model: nn.Module
    objective: Objective
    tokenizer: Tokenizer
    step: int
    metadata: dict[str, Any]
    num_averaged: int = 1

    @property
    def precision(self) -> str:
        """The precision that it was validated in during training."""
        return str(self.metadata["precision"])

    @property
    def text(self) -> dict[str, Any]:
        """The text that it was trained on: path, SHA-256, split and sizes of the batches."""
        return self.metadata["text"]

    @property
    def val_batch_size(self) -> int:
        """Sequences of a validation batch during training, or fewer, so that any file's batches fit in memory."""
        return min(self.text["val_batch_size"], max(1, MAX_TOKENS_PER_BATCH // self.text["block_size"]))


def find_model(
    reference: str, runs_dir: str, device: str, average_last_n: int = 1, trusted: frozenset[str] = frozenset()
) -> LoadedModel:
    """Load the model of a run onto a device.

    Args:
        reference: a run directory, a checkpoint, an exported model, `latest`, or one at W&B, see `download_checkpoint`.
        runs_dir: the directory of runs, for `latest`; downloads are beside it.
        device: auto, gpu, cpu, cuda or mps.
        average_last_n: average the weights of the run's newest n checkpoints (arXiv 1706.03762, section 6.1).
        trusted: see `build_model`.

    Raises:
        ValueError: there is no such run or device, or the run has fewer checkpoints.
    """
    path = locate_model(reference, runs_dir)
    loaded = load_model(path, trusted) if average_last_n == 1 else load_average(path.parent, average_last_n, trusted)
    loaded.model.to(find_device(device))
    return loaded


def locate_model(reference: str, runs_dir: str) -> Path:
    """Return the file that `find_model` loads, or the newest of those.

    Raises:
        ValueError: there is none.
    """
    if reference.startswith(PREFIX):
        return download_checkpoint(reference, Path(runs_dir).parent / "wandb" / "models")
    return Path(reference) if is_folder(Path(reference)) else find_checkpoint(reference, Path(runs_dir))


def load_average(folder: Path, count: int, trusted: frozenset[str] = frozenset()) -> LoadedModel:
    """Load the newest checkpoint of a folder with the mean of the weights of its newest `count` checkpoints.

    Raises:
        ValueError: there are fewer.
    """
    paths = step_checkpoints(folder)[-count:]
    if len(paths) < count:
        raise ValueError(
            f"{folder} has {len(paths)} checkpoints of steps, not {count}: keep more with callbacks.checkpoints."
            f"keep_last_n={count} callbacks.checkpoints.every_n_steps=..., or lower average_last_n"
        )
    models = [load_model(path, trusted) for path in paths]
    newest = models[-1].tokenizer.state()
    states = [loaded.model.state_dict() for loaded in models]
    for path, loaded in zip(paths, models, strict=True):
        if loaded.metadata["model"] != models[-1].metadata["model"] or loaded.tokenizer.state() != newest:
            raise ValueError(f"{path} has another model than {paths[-1]}: lower average_last_n")
    models[-1].model.load_state_dict({k: torch.stack([s[k] for s in states]).mean(dim=0) for k in states[0]})
    return replace(models[-1], num_averaged=count)


def load_model(path: Path, trusted: frozenset[str] = frozenset()) -> LoadedModel:
    """Load a checkpoint, or what was exported from one. The changes of LoRA are merged into its matrices.

    Args:
        path: the file, or a folder of Hugging Face's transformers; neither need be trusted.
        trusted: see `build_model`.

    Raises:
        ValueError: the file is not a checkpoint of miniGPT, or names a component that is not built.
    """
    is_exported, is_shared = path.suffix == ".safetensors", is_folder(path)
    checkpoint = {} if is_exported or is_shared else load_checkpoint(path)
    try:
        if is_shared:
            metadata, weights = read_folder(path)
        elif is_exported:
            metadata, weights = load_safetensors(path)
        else:
            metadata = check_mapping(checkpoint.get("minigpt"), "minigpt") | {"step": checkpoint.get("global_step")}
            weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k[:6] == "model."}
        metadata = check_metadata(metadata)
        tokenizer = load_tokenizer(metadata["tokenizer"])
        constructor = build_model(metadata["model"], trusted)
        objective = build_model(metadata["objective"], trusted)()
        check_component_options(metadata)
        vocab_size = tokenizer.vocab_size + objective.num_special_tokens
        model = build_for_weights(constructor, vocab_size, weights, may_lack=is_shared)
        loaded = LoadedModel(path, model.eval(), objective, tokenizer, metadata["step"], metadata)
        check_fit(loaded)
        if merge_lora(model):
            loaded.metadata["model"] = {k: v for k, v in loaded.metadata["model"].items() if k != "adapter"}
        return loaded
    except Exception as error:  # a file that may hold anything makes torch and the constructors raise any kind of error
        raise ValueError(f"{path} is not a checkpoint of this version of miniGPT: {first_line(error)}") from error


def build_for_weights(
    constructor: Callable[..., nn.Module], vocab_size: int, weights: Any, may_lack: bool = False
) -> nn.Module:
    """Build a model with given weights, which are compared with those of its constructor before they take memory.

    Args:
        constructor: called with `vocab_size`.
        vocab_size: number of token ids.
        weights: by their names.
        may_lack: leave out weights without effect that the model lacks, see `drop_neutral`.

    Raises:
        ValueError: the weights are not those of such a model, or it does not fit in memory.
    """
    if not weights:
        raise ValueError("it has no weights")
    elements = sum(weight.numel() for weight in weights.values())
    shadow = build_on_meta(constructor, vocab_size=vocab_size, max_elements=elements, max_tensors=len(weights))
    weights = drop_neutral(weights, shadow.state_dict()) if may_lack else weights
    check_weights(weights, shadow.state_dict())
    check_model_memory(shadow)
    model = constructor(vocab_size=vocab_size)
    model.load_state_dict(weights)
    return model


def check_fit(loaded: LoadedModel) -> None:
    """Check that model, objective, tokenizer and text fit each other, by their rules and by scoring two tokens.

    Raises:
        ValueError: they do not, or the score is not a number. A model outside this package may raise anything.
    """
    block_size, seq2seq = loaded.text["block_size"], isinstance(loaded.tokenizer, LineTokenizer)
    loaded.objective.check(loaded.model, block_size=block_size, seq2seq=seq2seq)
    tokens = torch.zeros(1, min(2, block_size), dtype=torch.int64)
    with torch.inference_mode():
        loss, *_ = loaded.objective.score(loaded.model, (tokens, tokens) if seq2seq else tokens, tokens)
    if not loss.isfinite():
        raise ValueError("its weights give a loss that is not a number")


def load_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata and the weights of an exported model."""
    check_regular(path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads((file.metadata() or {}).get("minigpt", "null"))
    return metadata, load_file(path)


def build_model(metadata: dict[str, Any], trusted: frozenset[str] = frozenset()) -> Callable[..., Any]:
    """Return the constructor that checkpoint metadata describes, with its options and its nested components.

    Args:
        metadata: a `_target_` and its options, as in the configuration.
        trusted: dotted names of classes outside `minigpt.model` that may be imported too, since the user has named
            them on the command line. Importing a module executes it.

    Raises:
        ValueError: a name is neither a class of `minigpt.model` nor trusted, or cannot be imported.
    """

    def find(target: Any) -> Callable[..., Any]:
        if not isinstance(target, str) or (target not in COMPONENTS and target not in trusted):
            raise ValueError(
                f"the checkpoint names {target!r}, which is not a component of minigpt.model: name it on the command "
                f"line if you trust it"
            )
        return COMPONENTS.get(target) or import_class(target)

    return assemble(metadata, find)


def import_class(name: str) -> Callable[..., Any]:
    """Import the class of a dotted name.

    Raises:
        ValueError: there is none.
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
