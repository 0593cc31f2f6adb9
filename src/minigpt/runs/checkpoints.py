"""Checkpoint files: written whole or not at all, found again by name and step."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

STEP_NAME = re.compile(r"step_(\d+)\.ckpt")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same folder, syncs it to the disk, and renames it: never a half checkpoint.

    Lightning's own goes through TMPDIR, so that across file systems the last step is a copy that can be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises OSError (disk full, no permission); the file that was at `path` is then untouched."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
            sync_folder(target.parent)
        finally:
            Path(name).unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return load_checkpoint(Path(path))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's plain data and tensors, on the CPU; a pickled class in it is refused.

    Raises:
        ValueError: the file is not such a checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"no checkpoint at {path}") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ValueError(f"{path} is not a checkpoint of miniGPT, or it is damaged ({type(error).__name__})") from error


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Give a checkpoint a second name, replacing what had it."""
    temporary = target.with_name(f".{target.name}-link")
    temporary.unlink(missing_ok=True)
    os.link(source, temporary)
    os.replace(temporary, target)


def step_checkpoints(folder: Path) -> list[Path]:
    """The `step_<n>.ckpt` files of a folder, oldest step first."""
    return sorted((p for p in folder.glob("step_*.ckpt") if STEP_NAME.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step that a `step_<n>.ckpt` is named after."""
    match = STEP_NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])
