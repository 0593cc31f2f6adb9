"""From a checkpoint file to a model and its tokenizer. Nothing in the file is executed."""

import functools
import json
import pkgutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from minigpt import model as models
from minigpt.data.tokenizer import Tokenizer, load_tokenizer
from minigpt.model.objectives import NextToken
from minigpt.model.size import build_within_memory
from minigpt.runs.checkpoints import load_checkpoint
from minigpt.runs.directory import find_checkpoint, step_checkpoints


def classes_of(package: ModuleType) -> dict[str, type]:
    """The classes that the modules of a package define, by their full name."""
    modules = [import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return {
        f"{c.__module__}.{c.__qualname__}": c
        for module in modules
        for c in vars(module).values()
        if isinstance(c, type) and c.__module__ == module.__name__
    }


PARTS = classes_of(models)


@dataclass(frozen=True)
class Trained:
    """A model as a checkpoint holds it, and what is needed to use it."""

    path: Path
    model: nn.Module
    objective: NextToken
    tokenizer: Tokenizer
    step: int
    description: dict[str, Any]  # see `minigpt.training.module.describe`

    @property
    def precision(self) -> str:
        """The precision that it was validated in while it was trained."""
        return str(self.description["precision"])

    @property
    def text(self) -> dict[str, Any]:
        """Which text it was trained on, and how that was cut."""
        return self.description["text"]


def find_trained(reference: str, log_dir: str, device: str, average: int = 1) -> Trained:
    """The model of a run directory, a checkpoint or `latest`, on a device.

    Args:
        average: take the mean of the weights of the run's newest so many steps (arXiv 1706.03762, section 6.1).

    Raises:
        ValueError: there is no such run or device, or it has fewer checkpoints.
    """
    path = find_checkpoint(reference, Path(log_dir) / "runs")
    trained = load_trained(path) if average == 1 else load_average(path.parent, average)
    trained.model.to(find_device(device))
    return trained


def load_average(folder: Path, count: int) -> Trained:
    """The newest of a folder's checkpoints, with the mean of the newest `count` checkpoints' weights.

    Raises:
        ValueError: there are fewer.
    """
    paths = step_checkpoints(folder)[-count:]
    if len(paths) < count:
        raise ValueError(
            f"{folder} has {len(paths)} checkpoints of steps, not {count}: keep more with "
            f"callbacks.checkpoints.keep_last={count} callbacks.checkpoints.every_n_steps=..., or lower average"
        )
    models = [load_trained(path) for path in paths]
    states = [trained.model.state_dict() for trained in models]
    models[-1].model.load_state_dict({k: torch.stack([s[k] for s in states]).mean(dim=0) for k in states[0]})
    return models[-1]


def find_device(name: str) -> torch.device:
    """The torch device for auto, gpu, cpu, cuda or mps.

    Raises:
        ValueError: this machine does not have it.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name in ("auto", "gpu"):
        kinds = ("cuda", "mps", "cpu") if name == "auto" else ("cuda", "mps")
        name = next((kind for kind in kinds if present[kind]), name)
    if not present.get(name):
        here = ", ".join(kind for kind, there in present.items() if there)
        raise ValueError(f"device {name} is not available on this machine, which has: {here}")
    return torch.device(name)


def load_trained(path: Path) -> Trained:
    """Read a checkpoint, or what was exported from one.

    Raises:
        ValueError: the file is not a checkpoint of miniGPT, or names a part that miniGPT does not have.
    """
    shared = path.suffix == ".safetensors"
    checkpoint = {} if shared else load_checkpoint(path)
    try:
        if shared:
            description, weights = load_safetensors(path)
            step = int(description["step"])
        else:
            description, step = checkpoint["minigpt"], int(checkpoint["global_step"])
            weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k[:6] == "model."}
        tokenizer = load_tokenizer(description["tokenizer"])
        constructor, objective = build_model(description["model"]), build_model(description["objective"])()
        model = build_within_memory(constructor, vocab_size=tokenizer.vocab_size + objective.extra_tokens)
        model.load_state_dict(weights)
        return Trained(path, model.eval(), objective, tokenizer, step, description)
    except Exception as error:  # what a file that may be anything makes torch and the model's constructor raise
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint of this version of miniGPT: {message}") from error


def load_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and weights of an exported model."""
    with safe_open(path, framework="pt") as file:
        description = json.loads((file.metadata() or {})["minigpt"])
    return description, load_file(path)


def build_model(description: dict[str, Any]) -> Any:
    """The constructor that a model's description names: data in, only miniGPT's own parts out.

    Raises:
        ValueError: for any other name.
    """
    options = {k: build_model(v) if isinstance(v, dict) else v for k, v in description.items()}
    target, _ = options.pop("_target_"), options.pop("_partial_", None)
    if target not in PARTS:
        raise ValueError(f"the checkpoint names {target!r}, which is not a part of a model")
    return functools.partial(PARTS[target], **options)
