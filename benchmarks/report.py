"""Shared by all benchmarks: runs of src/train.py, composed configurations, and the files of results."""

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

from minigpt.config.packaged import CONF
from minigpt.runs.summary import git_commit, read_summary

ROOT = Path(__file__).parents[1]


def train(folder: Path, *options: str, in_process: bool = False) -> dict[str, Any]:
    """Run src/train.py with W&B offline and the progress bar drawn, as on a terminal.

    Args:
        in_process: run it in this process instead of a new one.

    Returns:
        The run's summary, the `records` of metrics.csv, the run `directory`, and `whole_program_s`.
    """
    directory = folder / f"run-{time.monotonic_ns()}"
    command = [str(ROOT / "src/train.py"), *options, f"paths.run_dir={directory}", f"paths.log_dir={folder}"]
    start = time.perf_counter()
    with patch.dict(os.environ, WANDB_MODE="offline", TTY_COMPATIBLE="1"):
        if in_process:
            run_in_process(command)
        else:
            subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    with (directory / "metrics.csv").open() as file:
        found = {"records": list(csv.DictReader(file)), "directory": directory, "whole_program_s": seconds}
    return (read_summary(directory) or {}) | found


def run_in_process(command: list[str]) -> None:
    """Run a script in this process, which saves the imports, then undo its changes of the process."""
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


def compose_config(*options: str) -> dict[str, Any]:
    """The configuration that a command line of src/train.py composes, as plain data."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [*options, "name=bench"])
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def medians(measurements: list[dict[str, Any]]) -> dict[str, float]:
    """The median of each number that all measurements have, except the seed."""
    names = [k for k in measurements[0] if k != "seed" and all(isinstance(m.get(k), int | float) for m in measurements)]
    return {name: statistics.median(m[name] for m in measurements) for name in names}


def processor() -> str:
    """The processor's name and the number of threads that torch uses."""
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"model name\s*: (.*)", lines)
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def write_results(name: str, results: dict[str, Any], *, merge: bool = False) -> None:
    """Write results, with the machine and versions, to results/<name>_<date>.json.

    Args:
        merge: keep the other results of an existing file.
    """
    header = {
        "date": date.today().isoformat(),
        "machine": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "commit": git_commit(),
    }
    path = ROOT / "benchmarks/results" / f"{name}_{header['date']}.json"
    existing = json.loads(path.read_text()) if merge and path.is_file() else {}
    path.write_text(json.dumps(existing | header | results, indent=2, default=str) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
