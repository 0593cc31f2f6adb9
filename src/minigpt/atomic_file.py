"""Write a file or a folder whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a new empty file `.<name>-<random>` beside `target`; it replaces `target` on success, else it is deleted.

    It has the permissions that the umask gives, unlike those of `tempfile`, which only their owner may read.

    Raises:
        OSError: the file cannot be made or renamed.
    """
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors puts a file of its own, for its owner alone, in this one's place
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new empty folder `.<name>-<random>` beside `target`; it is renamed to it on success, else it is deleted.

    Raises:
        OSError: the folder cannot be made, or `target` is there.
    """
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
