"""Runs of the commands, each in a process of its own: forked from a server that has done the slow imports once."""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.faults.harness import ROOT, run_script


def run_command(
    script: str,
    options: Iterable[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout: float = 240,
    before: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess:
    """`python src/script options` in a folder, to its end; `before` is called in its process first."""
    command = [str(ROOT / "src" / script), *map(str, options)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    with tempfile.TemporaryDirectory(prefix="cli-") as place:
        streams = [Path(place) / name for name in ("output", "errors")]
        process = context.Process(target=become, args=(command, folder, streams, dict(environment), before))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, process.exitcode, *(s.read_text(errors="replace") for s in streams))


def become(
    command: list[str],
    folder: Path,
    streams: list[Path],
    environment: dict[str, str],
    before: Callable[[], None] | None,
) -> None:
    """What a forked process does: be that command, with what it prints in two files."""
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    atexit._clear()  # those are the server's
    code = run_script(Path(command[0]), command[1:], before, environment)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
