"""The checkpoints of one run, loaded when they are asked for."""

from collections import OrderedDict
from pathlib import Path

from minigpt.devices import find_device
from minigpt.inference.load import LoadedModel, load_model, locate_model
from minigpt.runs.directory import CHECKPOINTS, step_checkpoints, step_of

MAX_LOADED = 3


class RunCheckpoints:
    """The checkpoints of a run by their file names; the newest `MAX_LOADED` that were asked for stay in memory.

    Args:
        reference: a run directory, a checkpoint, an exported model or `latest`.
        runs_dir: the directory of runs, for `latest`.
        device: where to compute.
        trusted: classes outside of miniGPT that the user has named, which a model may have.

    Attributes:
        path: the checkpoint that is shown first.

    Raises:
        ValueError: there is no such model or device.
    """

    def __init__(self, reference: str, runs_dir: str, device: str, trusted: frozenset[str] = frozenset()) -> None:
        self.path = locate_model(reference, runs_dir).absolute()
        self.device = find_device(device)
        self.trusted = trusted
        self.loaded: OrderedDict[tuple[str, int], LoadedModel] = OrderedDict()
        self.load(self.path.name)

    @property
    def run_name(self) -> str:
        """The name of the run's directory, or of the file where it lies in none."""
        folder = self.path.parent
        return folder.parent.name if folder.name == CHECKPOINTS else self.path.name

    def files(self) -> dict[str, str]:
        """Return the file names of the checkpoints, earliest first, each with a label for the reader."""
        steps = step_checkpoints(self.path.parent) if self.path.suffix == ".ckpt" else []
        labels = {path.name: [f"step {step_of(path):,}"] for path in steps}
        others = [self.path.parent / name for name in ("best.ckpt", "last.ckpt") if steps]
        for path in dict.fromkeys([*others, self.path]):
            if path.exists() and path.name not in labels:
                same = next((step.name for step in steps if step.exists() and step.samefile(path)), None)
                labels.setdefault(same or path.name, []).append(path.stem if path.suffix == ".ckpt" else path.name)
        return {name: ", ".join(words) for name, words in labels.items()}

    @property
    def first(self) -> str:
        """The file name of the checkpoint that is shown first, as `files` has it."""
        names = self.files()
        same = (name for name in names if self.path.samefile(self.path.parent / name))
        return self.path.name if self.path.name in names else next(same, self.path.name)

    def load(self, name: str) -> LoadedModel:
        """Return the model of a checkpoint.

        Raises:
            ValueError: the run has no such checkpoint, or it cannot be loaded.
        """
        if name != self.path.name and name not in self.files():
            raise ValueError("the run has no such checkpoint (any more): load the page again")
        path: Path = self.path.parent / name
        key = (name, path.stat().st_mtime_ns)  # a training that goes on replaces last.ckpt
        if key not in self.loaded:
            loaded = load_model(path, self.trusted)
            loaded.model.float().to(self.device)
            self.loaded[key] = loaded
        self.loaded.move_to_end(key)
        while len(self.loaded) > MAX_LOADED:
            self.loaded.popitem(last=False)
        return self.loaded[key]
