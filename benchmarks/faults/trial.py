"""What the rows of the table share: processes that can be killed, and what a row says."""

import contextlib
import csv
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.plugins import Plugins

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "src" / "train.py"
NOBODY = 65534
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # another file system than the disk
# A tiny run with all that resuming must repeat: dropout, accumulated micro-batches, validations between checkpoints.
TINY = "debug=fast precision=32-true trainer.log_every_n_steps=1 model.dropout=0.1 data.batch_size=8".split()
TINY += "trainer.accumulate_grad_batches=2 trainer.val_every_n_steps=7 callbacks.checkpoints.every_n_steps=2".split()
REPEATED = "step train/loss val/loss val/bpc optim/lr optim/grad_norm progress/tokens".split()


@dataclass
class Result:
    """How often something held, of how many times; and what to know of it."""

    good: int
    of: int
    note: str = ""


@dataclass
class Row:
    """One fault: what miniGPT makes of it, and what its control does."""

    fault: str
    ours: Result
    control: str
    stock: Result | None  # None where controls were not run

    def holds(self) -> bool:
        """miniGPT always, the control not always."""
        return self.ours.good == self.ours.of and (self.stock is None or self.stock.good < self.stock.of)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"holds": self.holds()}


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def is_one_line(self) -> bool:
        """Whether it said what was wrong in one line, without a traceback."""
        return len(self.errors.splitlines()) == 1


class Process:
    """A program in a process of its own, forked after the slow imports, so that a kill finds it at work.

    It runs a script as `python script options` would: same arguments, own standard streams, own environment.
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
        handles = [tempfile.mkstemp(prefix="faults-", dir=MEMORY) for _ in ("output", "errors")]
        self.files = [Path(name) for _, name in handles]
        self.begun = time.monotonic()
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
                    become(user)
                code = work(script, [str(o) for o in options], before, environment or {})
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        for handle, _ in handles:
            os.close(handle)

    def wait(self, timeout: float = 120.0) -> Ended:
        """Its end; it is killed when that does not come."""
        deadline = time.monotonic() + timeout
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.kill()
                _, status = os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        seconds = time.monotonic() - self.begun
        texts = [path.read_text(errors="replace") for path in self.files]
        for path in self.files:
            path.unlink()
        return Ended(os.waitstatus_to_exitcode(status), *texts, seconds)

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def until(self, condition: Callable[[], Any], timeout: float = 60.0) -> bool:
        """Wait for something to be so; False when the process ended before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if condition():
                return True
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return bool(condition())
            time.sleep(0.002)
        return False


def work(
    script: Path, options: list[str], before: Callable[[], None] | None, environment: Mapping[str, str | None]
) -> int:
    """What a forked process does; its exit code."""
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, value in ({"MINIGPT_DATA_DIR": "data", "WANDB_MODE": "offline"} | dict(environment)).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = None  # look at TMPDIR again
    sys.argv = [str(script), *options]
    sys.path.insert(0, str(script.parent))
    if before is not None:
        before()
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def become(user: int) -> None:
    """Give up all rights, after a run that imports everything: that user may not be allowed to read the libraries."""
    with tempfile.TemporaryDirectory() as warm:
        options = [*TINY, "trainer.max_steps=2", f"paths.run_dir={warm}/run"]
        work(TRAIN, options, None, {"MINIGPT_DATA_DIR": warm})
    for stream in (1, 2):
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, os.SEEK_SET)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def run(options: Iterable[str], folder: Path, **how: Any) -> Ended:
    """A program from start to end."""
    return Process(options, folder, **how).wait()


def preload() -> None:
    """Import what every run imports, so that forked processes need not."""
    sys.path.insert(0, str(ROOT / "src"))
    torch.set_num_threads(1)
    import lightning.pytorch.callbacks
    import lightning.pytorch.loggers  # noqa: F401
    import wandb  # noqa: F401

    import minigpt.config.build
    import minigpt.config.door
    import minigpt.inference.export
    import minigpt.training.callbacks.progress
    import minigpt.training.callbacks.samples
    import minigpt.training.callbacks.skip_spikes
    import minigpt.training.fit  # noqa: F401
    from minigpt.config.conf import targets
    from minigpt.config.signature import read_signature

    Plugins.instance()
    for target in targets():
        read_signature(target)


def parallel(function: Callable[[Any], Any], items: Iterable[Any], workers: int = 2) -> list[Any]:
    """A function of every item, in forked workers."""
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return pool.map(function, list(items), chunksize=1)


def metric_rows(run_dir: Path) -> list[tuple[str, ...]]:
    """What of metrics.csv does not depend on the clock, as it stands there."""
    with (run_dir / "metrics.csv").open() as file:
        return [tuple(row.get(name, "") or "" for name in REPEATED) for row in csv.DictReader(file)]


def weights(path: Path) -> dict[str, Any]:
    """Weights and optimizer state of a checkpoint, flat."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    flat = dict(checkpoint["state_dict"])
    for index, optimizer in enumerate(checkpoint["optimizer_states"]):
        for parameter, state in optimizer["state"].items():
            flat |= {f"{index}/{parameter}/{name}": value for name, value in state.items()}
    return flat


def same_weights(one: Path, two: Path) -> bool:
    """Whether two checkpoints hold the same numbers, bit for bit."""
    a, b = weights(one), weights(two)
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def same_run(one: Path, two: Path) -> str:
    """What differs between two finished runs; empty when nothing does."""
    if not all((d / "checkpoints" / "last.ckpt").is_file() for d in (one, two)):
        return "no last checkpoint"
    for name in ("last.ckpt", "best.ckpt"):
        if not same_weights(one / "checkpoints" / name, two / "checkpoints" / name):
            return f"weights of {name}"
    if metric_rows(one) != metric_rows(two):
        return "metric rows"
    if (one / "samples.md").read_text() != (two / "samples.md").read_text():
        return "samples"
    status = [json.loads((d / "summary.json").read_text())["status"] for d in (one, two)]
    return "" if status == ["completed"] * 2 else "status"


def other_disk(folder: Path) -> Path:
    """A folder on another file system than `folder`, where there is one; `folder` itself otherwise."""
    return folder if MEMORY is None else Path(MEMORY) / folder.name


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path | None]:
    """A file system of a few megabytes; None where this process may not mount one."""
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
    """The processes that a process started, and theirs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.parent.name), *descendants(int(entry.parent.name))]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
