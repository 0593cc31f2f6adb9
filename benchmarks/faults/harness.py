"""Shared by all fault tests: options of a tiny run, and processes that can be killed."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.plugins import Plugins

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "src/train.py"
BASELINE = ROOT / "benchmarks/faults/baseline.py"
NOBODY = 65534  # user id
SHM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a file system other than the disk's
# A tiny run with everything that resuming must repeat: dropout, accumulated gradients, validations between checkpoints.
TINY = "debug=fast precision=32-true trainer.log_every_n_steps=1 model.dropout=0.1 data.batch_size=8".split()
TINY += "trainer.accumulate_grad_batches=2 trainer.val_every_n_steps=7 callbacks.checkpoints.every_n_steps=2".split()
TINY += ["paths.runs_dir=${paths.log_dir}/runs"]
# The same model sizes without debug=fast, for runs on another text.
TINY_MODEL = "model.num_layers=2 model.num_heads=2 model.dim=32 model.block_size=32".split()
ENVIRONMENT = {"MINIGPT_DATA_DIR": "data", "WANDB_MODE": "offline"}


@dataclass
class CompletedProcess:
    """A process that has ended."""

    exit_code: int
    stdout: str
    stderr: str
    seconds: float
    max_rss_bytes: int = 0
    cpu_seconds: float = 0.0

    @property
    def has_one_line_error(self) -> bool:
        """Whether standard error is a single line, hence not a traceback."""
        return len(self.stderr.splitlines()) == 1

    @property
    def is_usage_error(self) -> bool:
        """Whether the command was refused with exit code 2 and a one-line message."""
        return self.exit_code == 2 and self.has_one_line_error

    def __str__(self) -> str:
        return f"exit code {self.exit_code}: {self.stderr.strip()[-300:]}"


class Process:
    """A script in a forked process, started after the slow imports so that a kill hits the actual work.

    It runs as `python script options` would, with its own arguments, standard streams and environment.

    Args:
        options: command line options of the script.
        folder: working directory, created if missing.
        before: called in the child before the script, e.g. to patch something.
        user: user id to run as, if this process is root.
        environment: changes of the environment; None removes a variable.
    """

    def __init__(
        self,
        options: Iterable[str],
        folder: Path,
        *,
        script: Path = TRAIN,
        before: Callable[[], None] | None = None,
        user: int | None = None,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        handles = [tempfile.mkstemp(prefix="faults-", dir=SHM) for _ in ("stdout", "stderr")]
        self.files = [Path(name) for _, name in handles]
        self.start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                for stream, (handle, _) in enumerate(handles, start=1):
                    os.dup2(handle, stream)
                os.setpgid(0, 0)
                os.chdir(folder)
                if user is not None and os.getuid() == 0:
                    drop_privileges(user)
                code = run_script(script, [str(o) for o in options], before, environment or {})
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        for handle, _ in handles:
            os.close(handle)

    def wait(self, timeout: float = 120.0) -> CompletedProcess:
        """Wait for the end of the process; kill it after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.kill()
                _, status, usage = os.wait4(self.pid, 0)
                break
            time.sleep(0.005)
        seconds = time.monotonic() - self.start
        texts = [path.read_text(errors="replace") for path in self.files]
        for path in self.files:
            path.unlink()
        code, cpu_seconds = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        return CompletedProcess(code, *texts, seconds, usage.ru_maxrss * 1024, cpu_seconds)

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait_until(self, condition: Callable[[], Any], timeout: float = 60.0) -> bool:
        """Wait until a condition is true; return False on a timeout or if the process ended before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return True
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return bool(condition())
            time.sleep(0.002)
        return False


def run_script(
    script: Path, options: list[str], before: Callable[[], None] | None, environment: Mapping[str, str | None]
) -> int:
    """Run a script in this (forked) process and return its exit code."""
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, value in (ENVIRONMENT | dict(environment)).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = None  # read TMPDIR again
    sys.argv = [str(script), *options]
    sys.path.insert(0, str(script.parent))
    if before is not None:
        before()
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def drop_privileges(user: int) -> None:
    """Become another user, after a run that imports everything: that user may not be able to read the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*TINY, "trainer.max_steps=2", f"paths.run_dir={folder}/run"]
        run_script(TRAIN, options, None, {"MINIGPT_DATA_DIR": folder})
    for stream in (1, 2):
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, os.SEEK_SET)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def run(options: Iterable[str], folder: Path, **arguments: Any) -> CompletedProcess:
    """Run a script from start to end; the arguments are those of `Process`."""
    return Process(options, folder, **arguments).wait()


def subprocess_environment() -> dict[str, str]:
    """The environment of runs that are started as usual, not forked."""
    return os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "1"}


def preload() -> None:
    """Import what every run imports, so that forked processes need not."""
    sys.path.insert(0, str(ROOT / "src"))
    torch.set_num_threads(1)
    import lightning.pytorch.callbacks
    import lightning.pytorch.loggers  # noqa: F401
    import wandb  # noqa: F401

    import minigpt.cli
    import minigpt.config.build
    import minigpt.inference.safetensors_export
    import minigpt.training.callbacks.progress
    import minigpt.training.callbacks.samples
    import minigpt.training.callbacks.skip_spikes
    import minigpt.training.fit  # noqa: F401
    from minigpt.config.packaged import packaged_targets
    from minigpt.config.signature import read_signature

    Plugins.instance()
    for target in packaged_targets():
        read_signature(target)


def parallel(function: Callable[[Any], Any], items: Iterable[Any], workers: int = 2) -> list[Any]:
    """Map a function over items in forked worker processes."""
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return pool.map(function, list(items), chunksize=1)
