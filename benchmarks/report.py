"""What the programs of this folder share: runs of src/train.py, what they are built from, and the file of figures."""

import contextlib
import csv
import io
import json
import logging
import os
import platform
import re
import runpy
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from minigpt.config.conf import CONF
from minigpt.runs.summary import git_commit, read_summary

ROOT = Path(__file__).parents[1]


def train(folder: Path, *options: str, inside: bool = False) -> dict[str, Any]:
    """One run of src/train.py: its summary, its metric `rows`, its `directory` and the seconds of the whole program.

    W&B is offline and the progress bar is drawn, as on a terminal. `inside` runs it in this process.
    """
    directory = folder / f"run-{time.monotonic_ns()}"
    command = [str(ROOT / "src/train.py"), *options, f"paths.run_dir={directory}", f"paths.log_dir={folder}"]
    begin = time.perf_counter()
    with patch.dict(os.environ, WANDB_MODE="offline", TTY_COMPATIBLE="1"):
        if inside:
            run_inside(command)
        else:
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - begin
    with (directory / "metrics.csv").open() as file:
        found = {"rows": list(csv.DictReader(file)), "directory": directory, "whole_program_s": wall}
    return (read_summary(directory) or {}) | found


def run_inside(command: list[str]) -> None:
    """A program in this process, which saves the imports; what it changes here is put back."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(patch.object(sys, "argv", command))
        stack.enter_context(patch.object(ArgumentParser, "error", ArgumentParser.error))
        stack.enter_context(patch.dict(os.environ))
        runpy.run_path(command[0], run_name="__main__")
    logging.captureWarnings(False)
    for log in (logging.getLogger(name) for name in ("minigpt", "py.warnings")):
        log.handlers[0].close()
        log.handlers, log.propagate = [], True


def composed(*options: str) -> dict[str, Any]:
    """The configuration that a command line of src/train.py gets."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*options, "name=bench"])
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def middle(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The median of each figure that all rows have."""
    names = [k for k in rows[0] if k != "seed" and all(isinstance(row.get(k), int | float) for row in rows)]
    return {name: statistics.median(row[name] for row in rows) for name in names}


def processor() -> str:
    """The processor's name and how many of it this process may use."""
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"model name\s*: (.*)", lines)
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def write(name: str, figures: dict[str, Any], *, merge: bool = False) -> None:
    """Put figures, and what they were measured on, into results/<name>_<date>.json; `merge` keeps what is there."""
    header = {
        "date": date.today().isoformat(),
        "machine": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "commit": git_commit(),
    }
    path = ROOT / "benchmarks/results" / f"{name}_{header['date']}.json"
    earlier = json.loads(path.read_text()) if merge and path.is_file() else {}
    path.write_text(json.dumps(earlier | header | figures, indent=2, default=str) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
