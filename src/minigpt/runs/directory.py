"""Run directories: made atomically, found again by path or as `latest`."""

import os
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from minigpt.atomic_file import atomic_write
from minigpt.runs.commands import program
from minigpt.runs.redaction import redact
from minigpt.runs.untrusted import check_regular

CHECKPOINTS = "checkpoints"
BEST = "best.ckpt"
METRICS = "metrics.csv"
SAMPLES = "samples.md"
TIME = "%Y-%m-%d_%H-%M-%S"
CONFIG = "config.yaml"
DEBUG = "debug"  # the directory of the runs of conf/debug, beside that of all others
STEP_NAME = re.compile(r"step_(\d{1,18})\.ckpt", re.ASCII)
FOLDERS = (CHECKPOINTS, ".hydra")  # of a run; loggers may add their own
FILES = (CONFIG, METRICS, SAMPLES, "summary.json", "train.log")


def is_rank_zero() -> bool:
    """Whether this process prints and writes for the run; the others only compute.

    For code that runs before there is a Trainer, or without one; afterwards `trainer.is_global_zero` says the same.
    """
    return all(
        os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    )


def make_run_directory(parent: Path, name: str) -> Path:
    """A new directory `<date>_<time>_<name>-<random>`, never one that exists; a Slurm job's number is part of it.

    Raises:
        ValueError: the name is not one of a folder, or the parent cannot be written.
    """
    if not name or name.startswith(".") or Path(name).name != name or "\0" in name:
        raise ValueError(f"name={name!r} must be usable as a folder's name")
    job = f"slurm{os.environ['SLURM_JOB_ID']}-" if "SLURM_JOB_ID" in os.environ else ""
    while True:
        directory = parent / f"{datetime.now():{TIME}}_{name}-{job}{secrets.token_hex(3)}"
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"cannot make a run directory in {parent}: {error.strerror}") from error
        (directory / CHECKPOINTS).mkdir()
        return directory


def find_run(reference: str, runs_dir: Path) -> Path:
    """The directory of a run: a path to it, or `latest`.

    `latest` is the newest run whatever its state: the results of an older one must not pass for its own.

    Raises:
        ValueError: there is none, or its config.yaml is not a file.
    """
    if reference.startswith("wandb:"):
        raise ValueError(
            f"{reference} is a checkpoint alone, for evaluate, generate and export: resume=RUN_DIR continues"
        )
    if reference == "latest":
        runs = list_runs(runs_dir)
        if not runs:
            debug = list_runs(runs_dir.parent / DEBUG)
            hint = f"; those of debug=... are not `latest`, name one: {debug[-1]}" if debug else ""
            raise ValueError(f"no run in {runs_dir} yet: train one with {program('train')}{hint}")
        directory = runs[-1]
    else:
        directory = Path(reference)
    if not os.path.lexists(directory / CONFIG):
        raise ValueError(f"no run at {reference}: name a run directory (it holds {CONFIG}), or latest")
    check_regular(directory / CONFIG)
    return directory


def list_runs(runs_dir: Path) -> list[Path]:
    """The run directories in a directory, oldest first."""
    runs = [path.parent for path in runs_dir.glob(f"*/{CONFIG}")]
    return sorted(runs, key=lambda run: (start_time(run), (run / CONFIG).lstat().st_mtime_ns))


def start_time(directory: Path) -> str:
    """When a run began: by its name where that says so, else by its files."""
    if re.match(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_", directory.name):
        return directory.name[:19]
    return f"{datetime.fromtimestamp((directory / CONFIG).lstat().st_mtime):{TIME}}"


def find_checkpoint(reference: str, runs_dir: Path, prefer: str = BEST) -> Path:
    """A checkpoint file: a path to it, or the preferred one of a run, else its last.

    Raises:
        ValueError: there is none.
    """
    if "://" in reference:
        raise ValueError(f"run={reference} is an address: download the file first, from someone you trust")
    if Path(reference).is_file():
        return Path(reference)
    if reference.endswith((".ckpt", ".safetensors")):
        raise ValueError(f"no checkpoint at {reference}")
    folder = find_run(reference, runs_dir) / CHECKPOINTS
    for name in (prefer, "last.ckpt"):
        if os.path.lexists(folder / name):
            check_regular(folder / name)
            return folder / name
    raise ValueError(f"the run {folder.parent} has no checkpoint yet")


def check_run_files(directory: Path) -> None:
    """Raise ValueError for a run directory with links or pipes in it: it may come from anybody, and is written to."""
    for path in directory.rglob("*"):
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link: a run directory must hold its files itself")
        if not path.is_dir():
            check_regular(path)
    check_own_files(directory)


def check_own_files(directory: Path) -> None:
    """Raise ValueError where something else is in the place of a file or a folder that a run writes."""
    folders = [directory / name for name in FOLDERS]
    for folder in folders:
        if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
            raise ValueError(f"{folder} is not a directory: a run keeps files in it")
    files = [directory / f"{prefix}{name}" for name in FILES for prefix in ("", ".")]  # see `replace_text`
    for path in [*files, *(path for folder in folders for path in folder.glob("*"))]:
        if os.path.lexists(path):
            check_regular(path)


def step_checkpoints(folder: Path) -> list[Path]:
    """The `step_<n>.ckpt` files of a folder, oldest step first."""
    return sorted((p for p in folder.glob("step_*.ckpt") if STEP_NAME.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step that a `step_<n>.ckpt` is named after."""
    match = STEP_NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def write_text_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write small text files of a run, by their names in it, without secrets."""
    for name, text in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        replace_text(directory / name, redact(text))


def replace_text(path: Path, text: str) -> None:
    """Put a text in a file's place, whole or not at all. Raises OSError."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")  # a CSV file has its own line ends
