"""`make faults`: injects faults, and prints how miniGPT and a baseline without it handle them.

Every fault is injected into real processes, files and sockets. The baseline of a row is the default behaviour of the
libraries that miniGPT is built on; if the baseline does not fail, the row tests nothing. The table is printed and
written as JSON to benchmarks/results/.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.faults import (
    adversarial,
    adversarial_configs,
    concurrency,
    damaged,
    devices,
    disks,
    edges,
    fuzz,
    killed,
    leaked_secrets,
    network,
    numerics,
    ranks,
    refusals,
    stops,
    wrong_resume,
)
from benchmarks.faults.harness import ROOT, preload
from benchmarks.faults.results import Result, Row
from benchmarks.faults.system import other_disk
from rich.console import Console
from rich.table import Table

QUICK = """
    killed damaged full read_only preemption non_finite loss_spike memory wrong_resume secrets command_line
    option_values states
""".split()


def fault_tests(quick: bool) -> dict[str, Callable[[Path], Iterator[Row]]]:
    """The fault tests by name; the quick ones are part of the test suite."""
    n = 0 if quick else 1
    table = {
        "killed": partial(killed.killed, trials=3 if quick else 50, baselines=10 * n),
        "saving": partial(killed.saving, trials=4 if quick else 50, baselines=50 * n),
        "damaged": partial(damaged.damaged, trials=4 if quick else 220, baselines=220 * n),
        "devices": partial(devices.devices, trials=1 if quick else 4, baselines=n),
        "clock": partial(damaged.clock, baselines=n),
        "full": partial(disks.full, baselines=n),
        "read_only": partial(disks.read_only, baselines=n),
        "cache": partial(disks.cache, baselines=n),
        "signals": partial(stops.signals, baselines=n),
        "ranks": partial(ranks.ranks, baselines=n),
        "preemption": partial(stops.preemption, baselines=n),
        "non_finite": partial(numerics.non_finite, baselines=n),
        "loss_spike": partial(numerics.loss_spike, baselines=n),
        "memory": partial(numerics.memory, baselines=n),
        "first_runs": partial(concurrency.first_runs, baselines=n),
        "multirun": partial(concurrency.multirun, baselines=n),
        "wandb": partial(network.wandb_down, baselines=n),
        "wrong_resume": partial(wrong_resume.wrong_resume, baselines=n),
        "checkpoints": partial(adversarial.checkpoints, baselines=n),
        "configs": partial(adversarial_configs.configs, baselines=n),
        "states": partial(refusals.refusals, trials=10 if quick else 300, baselines=60 * n),
        "secrets": partial(leaked_secrets.secrets, baselines=n),
        "option_values": partial(edges.option_values, trials=12 if quick else 400, baselines=n),
        "command_line": partial(fuzz.command_line, trials=40 if quick else 500, baselines=n),
    }
    return {name: test for name, test in table.items() if not quick or name in QUICK}


def run_test(test: Callable[[Path], Iterator[Row]], name: str, base: Path, quick: bool) -> list[dict[str, Any]]:
    """The rows of one fault test as plain data; an exception is a failure, and is raised in a quick run."""
    folder = base / name / "here"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    start = time.monotonic()
    try:
        rows = [row.to_json() for row in test(folder)]
    except Exception as error:
        if quick:
            raise
        rows = [Row(name, Result(0, 1, f"{type(error).__name__}: {error}"), "", None).to_json()]
    shutil.rmtree(other_disk(folder), ignore_errors=True)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return [row | {"seconds": round(time.monotonic() - start, 1)} for row in rows]


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table."""
    table = Table("fault", "miniGPT", "baseline", "", title="trials without a loss or an effect", show_lines=True)
    for row in rows:
        ours, baseline = row["ours"], row["baseline"]
        mine = f"{ours['good']} / {ours['of']}" + (f"\n{ours['note']}" if ours["note"] else "")
        theirs = f"{baseline['good']} / {baseline['of']}\n{baseline['note']}" if baseline else "not run"
        holds = "holds" if row["holds"] else "[red]DOES NOT HOLD"
        table.add_row(row["fault"], mine, f"{row['baseline_name']}\n{theirs}", holds)
    console.print(table)


def write_report(rows: list[dict[str, Any]], seconds: float, console: Console) -> None:
    """Write the table as JSON."""
    from minigpt.runs.summary import git_commit

    report = {
        "date": str(date.today()),
        "minutes": round(seconds / 60, 1),
        "machine": f"{os.cpu_count()} cores, {processor()}",
        "python": platform.python_version(),
        "versions": {m: importlib.import_module(m).__version__ for m in ("torch", "lightning", "hydra", "wandb")},
        "commit": git_commit(),
        "rows": rows,
    }
    path = ROOT / f"benchmarks/results/faults_{date.today()}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"{report['minutes']} minutes, written to {path.relative_to(ROOT)}")


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run the fault tests, print the table and write it; the exit code is 1 if a row does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials, no baselines, nothing written")
    parser.add_argument("--rows", nargs="*", help="only these fault tests")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    os.environ["OMP_NUM_THREADS"] = "1"  # two trials run at once
    preload()
    tests, start, rows = fault_tests(arguments.quick), time.monotonic(), []
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    base.chmod(0o755)  # some trials run as a user without privileges
    for name in arguments.rows or tests:
        for row in run_test(tests[name], name, base, arguments.quick):
            console.print(f"{row['seconds']:6.1f} s  {row['ours']['good']} / {row['ours']['of']}  {row['fault']}")
            rows.append(row)
    shutil.rmtree(base, ignore_errors=True)
    show(rows, console)
    if not arguments.quick and not arguments.rows:
        write_report(rows, time.monotonic() - start, console)
    sys.exit(0 if all(row["holds"] for row in rows) else 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
