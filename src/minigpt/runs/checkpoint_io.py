"""Checkpoint files: written completely or not at all, sealed with a checksum, and loaded as plain data."""

import errno
import hashlib
import os
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedRandom
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from minigpt.atomic_file import atomic_write
from minigpt.runs.checkpoint_content import check_tensors
from minigpt.runs.directory import step_checkpoints
from minigpt.runs.untrusted import UntrustedFileError, check_regular

CHECKSUM_BYTES = 64  # a SHA-256 in hexadecimal
COMMENT = struct.pack("<H", CHECKSUM_BYTES)  # the length of a zip archive's comment, which precedes it
MAX_RECORDS = 200_000  # of an archive; a checkpoint has one for each tensor


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file in the same folder, adds a checksum, syncs it to the disk, and renames it.

    So there is never half a checkpoint. Lightning's own plugin writes to TMPDIR first, and across file systems its last
    step is a copy that can be cut short.

    Args:
        async_save: copy the state and write it in a background thread. One save at a time: the next one waits.
        loaded: content of checkpoints that were loaded already, by their path; each is given out once.
    """

    def __init__(self, *, async_save: bool = False, loaded: Mapping[Path, dict[str, Any]] | None = None) -> None:
        self.async_save = async_save
        self._loaded = dict(loaded or {})
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises OSError (disk full, no permission), of this save or of the one before, if that was in the background.

        The file that was at `path` is then untouched.
        """
        self.finish()
        if self.async_save:
            self._pending.append(self._writer.submit(write, snapshot(checkpoint), Path(path)))
        else:
            write(checkpoint, Path(path))

    def then(self, task: Callable[[], None]) -> None:
        """Do something once the last save is on the disk; not at all if that failed."""
        if not self._pending:
            task()
            return
        before = self._pending[-1]

        def follow() -> None:
            if before.exception() is None:
                task()

        self._pending.append(self._writer.submit(follow))

    def finish(self) -> None:
        """Wait for what is under way. Raises the error that it met."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        content = self._loaded.pop(Path(path), None)
        return load_checkpoint(Path(path)) if content is None else content


def write(checkpoint: dict[str, Any], target: Path) -> None:
    """One checkpoint, whole or not at all. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_write(target) as temporary, temporary.open("r+b") as file:
            torch.save(checkpoint, file)
            append_checksum(file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(target.parent)
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error):
            raise
        # what torch makes of a disk that is full
        raise OSError(errno.ENOSPC, f"could not be written ({str(error).splitlines()[0]})", str(target)) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error  # not the temporary file


def snapshot(state: Any) -> Any:
    """The same nested containers with every tensor copied to the CPU's memory, so that training may go on."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return type(state)((key, snapshot(value)) for key, value in state.items())
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state


def check_space(folder: Path, checkpoint_bytes: int, count: int) -> None:
    """Raises ValueError when `folder` has no room for `count` checkpoints, or cannot be written."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        advice = "name another folder with paths.log_dir=..."
        raise ValueError(f"{existing} cannot be written ({error.strerror}): {advice}") from error
    needed = count * checkpoint_bytes
    if free < needed:
        raise ValueError(
            f"{existing} has {free / 1e6:,.0f} MB free, {count} checkpoints take {needed / 1e6:,.0f} MB: make room, "
            f"name another folder with paths.log_dir=..., or lower callbacks.checkpoints.keep_last_n"
        )


def append_checksum(file: BufferedRandom) -> None:
    """Append the SHA-256 of all that is in a zip archive as the archive's comment: torch.load reads it as before."""
    file.seek(-2, os.SEEK_END)  # the length of the comment ends the archive
    file.write(COMMENT)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0, os.SEEK_END)
    file.write(digest.encode())


def is_valid(path: Path) -> bool:
    """Whether a checkpoint is, bit for bit, what was written."""
    try:
        with path.open("rb") as file:
            size = file.seek(-len(COMMENT) - CHECKSUM_BYTES, os.SEEK_END) + len(COMMENT)
            if file.read(len(COMMENT)) != COMMENT:
                return False  # before hashing, since a sparse file may have any size
            wanted = file.read()
            file.seek(0)
            digest = hashlib.sha256()
            while size:
                piece = file.read(min(size, 1 << 20))
                digest.update(piece)
                size -= len(piece)
    except OSError:
        return False
    return digest.hexdigest().encode() == wanted


class DamagedCheckpointError(ValueError):
    """A file that is not what was written: cut short, changed, or never a checkpoint of miniGPT."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's plain data and tensors, on the CPU; a pickled class in it is refused.

    Raises:
        ValueError: the file is not there, is not such a checkpoint, or is not as it was written.
    """
    check_regular(path)
    if not is_valid(path):
        raise DamagedCheckpointError(
            f"{path} is not a checkpoint of miniGPT, or it is damaged: its checksum does not match"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            check_records(archive.infolist(), path.stat().st_size)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict):
            raise TypeError(type(loaded).__name__)
        check_tensors(loaded, path.stat().st_size, str(path))
        return loaded
    except UntrustedFileError:
        raise
    except Exception as error:  # torch raises many kinds
        raise ValueError(f"{path} is not a checkpoint of miniGPT ({type(error).__name__})") from error


def check_records(records: list[zipfile.ZipInfo], file_bytes: int) -> None:
    """Raise ValueError for an archive that would take more memory than its own size; torch compresses nothing."""
    if len(records) > MAX_RECORDS or sum(record.file_size for record in records) > file_bytes:
        raise ValueError("its records are larger than the file")
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise ValueError("compressed")


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut, where the system can open a folder. Windows cannot."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """Give a checkpoint a second name, replacing what had it; a copy where the file system knows no hard links."""
    temporary = target.with_name(f".{target.name}-link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # replacing a name of the same file does nothing


def load_latest(folder: Path) -> tuple[Path, dict[str, Any], list[Path]] | None:
    """The undamaged checkpoint of the highest step, its content, and the damaged ones after it; None without one.

    Raises:
        ValueError: the newest checkpoint is as it was written, and yet not one of miniGPT.
    """
    damaged = []
    for path in reversed(step_checkpoints(folder)):
        try:
            return path, load_checkpoint(path), damaged
        except DamagedCheckpointError:
            damaged.append(path)
    return None


def quarantine(damaged: list[Path], used: Path) -> None:
    """Rename damaged checkpoints, and say so. For one process of a run alone."""
    for path in damaged:
        renamed = path.with_suffix(".damaged")
        os.replace(path, renamed)
        print(f"{path} is damaged: renamed to {renamed.name}, resuming from {used.name}", file=sys.stderr)


def remove_temp_files(directory: Path) -> None:
    """Remove the temporary files of interrupted saves from a run directory, see `atomic_write`."""
    for pattern in ("checkpoints/.*.ckpt-*", ".*.yaml-*", ".*.json-*", ".*.csv-*", ".*.md-*"):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)
