"""Whatever lies in a run directory or a checkpoint: a result, or one line and nothing changed; little time and memory.

A trial may end with exit code 0, since not every command needs every file.
"""

import csv
import hashlib
import json
import resource
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.faults.harness import ROOT, TINY, Process, parallel, run
from benchmarks.faults.results import Result, Row
from benchmarks.faults.states import EXPORTED, RUN_NAME, STEP_FILE, State, options, prepare, states

LIMIT_S, LIMIT_BYTES = 10.0, 2 << 30
HANG_S = 60.0  # after which a trial is killed; two run at once, perhaps on a busy machine


@dataclass(frozen=True)
class Trial:
    """What came of one state.

    Attributes:
        failure: what was wrong with it; empty if nothing was.
        exit_code: of the command.
        seconds: of processor time; the imports of torch and Lightning are done before.
        max_rss_bytes: the most memory that it had.
    """

    failure: str
    exit_code: int
    seconds: float
    max_rss_bytes: int


def fingerprint(place: Path) -> list[tuple[Any, ...]]:
    """Everything in a folder: names, kinds and contents."""
    found: list[tuple[Any, ...]] = []
    for path in sorted(place.rglob("*")):
        info = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else ""
        if stat.S_ISREG(info.st_mode) and info.st_size < 1 << 30:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append((path, info.st_mode, info.st_size if stat.S_ISREG(info.st_mode) else 0, content))
    return found


def limit_memory() -> None:
    """Keep a trial from taking the memory of the machine; what it should take is far less, see `LIMIT_BYTES`."""
    resource.setrlimit(resource.RLIMIT_DATA, (3 * LIMIT_BYTES, 3 * LIMIT_BYTES))


def try_state(folder: Path, item: tuple[int, State]) -> Trial:
    """Bring a copy of a good run into a state, and run the command that meets it."""
    number, state = item
    logs = folder / f"state-{number}"
    place = logs / "runs" / RUN_NAME
    shutil.copytree(folder / "good", place)
    prepare(state, place)
    before = fingerprint(logs)
    script, arguments, environment = options(state.command, place, folder)
    process = Process(arguments, folder, script=ROOT / f"src/{script}.py", before=limit_memory, environment=environment)
    done = process.wait(HANG_S)
    failure = ""
    if done.exit_code not in (0, 2) or "Traceback" in done.stderr:
        failure = "killed" if done.seconds > HANG_S else "no clean end"
    elif done.exit_code == 2 and not (done.has_one_line_error and done.stderr.startswith("error: ")):
        failure = "not one line"
    elif done.exit_code == 2 and fingerprint(logs) != before:
        failure = "something changed on disk"
    elif done.cpu_seconds > LIMIT_S or done.max_rss_bytes > LIMIT_BYTES:
        failure = f"{done.cpu_seconds:.0f} s, {done.max_rss_bytes / 2**30:.1f} GiB"
    shutil.rmtree(logs)
    message = f"{state}: {failure}: {done}" if failure else ""
    return Trial(message, done.exit_code, done.cpu_seconds, done.max_rss_bytes)


def read_plainly(folder: Path, item: tuple[int, State]) -> str:
    """Read the run in a state as a plain script would; returns how that failed, if it did."""
    number, state = item
    place = folder / f"plain-{number}"
    shutil.copytree(folder / "good", place)
    prepare(state, place)
    script = place.with_suffix(".py")
    script.write_text("")
    done = Process([], folder, script=script, before=partial(read_files, place)).wait(LIMIT_S)
    shutil.rmtree(place)
    return "" if done.exit_code == 0 or done.is_usage_error else f"{state}: {done}"


def read_files(place: Path) -> None:
    """Open a run's files and load its checkpoint with the libraries alone."""
    limit_memory()
    yaml.safe_load((place / "config.yaml").read_text())["trainer"]["max_steps"]
    json.loads((place / "summary.json").read_text())["steps"]
    with (place / "metrics.csv").open() as file:
        [int(record["step"]) for record in csv.DictReader(file)]
    checkpoint = torch.load(place / STEP_FILE, weights_only=True)
    weights = torch.load(place.parent / "good" / STEP_FILE, weights_only=True)["state_dict"]
    for name, weight in weights.items():
        weight.copy_(checkpoint["state_dict"][name])


def make_good_run(folder: Path) -> None:
    """A run with everything in it, and its model as exported."""
    good = folder / "good"
    paths = [f"paths.run_dir={good}", f"paths.data_dir={folder / 'data'}"]
    assert run([*TINY, "trainer.max_steps=10", *paths], folder).exit_code == 0
    export = [f"run={good}", f"output={good / EXPORTED}"]
    assert run(export, folder, script=ROOT / "src/export.py").exit_code == 0


def refusals(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """Every state with its command."""
    make_good_run(folder)
    drawn = list(enumerate(states(folder / "good", trials)))
    results: list[Trial] = parallel(partial(try_state, folder), drawn)
    failures = [trial.failure for trial in results if trial.failure]
    for failure in failures:
        print(failure, flush=True)
    codes = Counter(trial.exit_code for trial in results)
    slowest, largest = max(t.seconds for t in results), max(t.max_rss_bytes for t in results) / 2**30
    note = f"{codes[2]} refused, {codes[0]} harmless; at most {slowest:.1f} s and {largest:.2f} GiB"
    ours = Result(len(results) - len(failures), len(results), "; ".join([note, *failures])[:600])
    baseline = None
    if baselines:
        plain = parallel(partial(read_plainly, folder), drawn[:: max(1, len(drawn) // baselines)])
        clean = sum(not failure for failure in plain)
        baseline = Result(clean, len(plain), "the others end with a traceback, or not at all")
    fault = "states of a run directory or a checkpoint: a result, or one line and nothing changed; 10 s, 2 GiB at most"
    yield Row(fault, ours, "yaml, json, csv and torch.load(weights_only=True)", baseline)
