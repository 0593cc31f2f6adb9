"""File systems and processes of the machine that the fault tests run on."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.harness import SHM


def other_disk(folder: Path) -> Path:
    """A folder on another file system than `folder` if there is one, else `folder` itself."""
    return folder if SHM is None else Path(SHM) / folder.name


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """Mount a file system of a few megabytes; yields None if this process may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def descendants(pid: int) -> list[int]:
    """All child processes of a process, and theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.parent.name), *descendants(int(entry.parent.name))]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def environment_of(pid: int) -> str:
    """The environment that a process was started with."""
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return ""
