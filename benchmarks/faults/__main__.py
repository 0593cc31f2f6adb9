"""`make faults`: the table of faults, what miniGPT makes of each, and what one would have without it.

Every fault is done to real processes, files and sockets. Each row has a control, the stock behaviour of the libraries
that miniGPT is built on; a control that did not fail would show that the row tests nothing. The table is printed and
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

import torch
from benchmarks.faults.trial import ROOT, Result, Row, other_disk, preload
from rich.console import Console
from rich.table import Table


def rows(quick: bool) -> dict[str, Callable[[Path], Iterator[Row]]]:
    """The rows by name; the quick ones are a part of the tests."""
    from benchmarks.faults import crowd, disks, fuzz, hostile, killed, network, stops

    n = 0 if quick else 1
    table = {
        "killed": partial(killed.killed, trials=3 if quick else 50, controls=10 * n),
        "writing": partial(killed.writing, trials=4 if quick else 50, controls=50 * n),
        "damaged": partial(killed.damaged, trials=4 if quick else 220, controls=220 * n),
        "devices": partial(killed.devices, trials=1 if quick else 4, controls=n),
        "clock": partial(killed.clock, controls=n),
        "full": partial(disks.full, controls=n),
        "read_only": partial(disks.read_only, controls=n),
        "cache": partial(disks.cache, controls=n),
        "signals": partial(stops.signals, controls=n),
        "ranks": partial(stops.ranks, controls=n),
        "preemption": partial(stops.preemption, controls=n),
        "numbers": partial(stops.numbers, controls=n),
        "memory": partial(stops.memory, controls=n),
        "first_runs": partial(crowd.first_runs, controls=n),
        "sweep": partial(crowd.sweep, controls=n),
        "wandb": partial(network.wandb_down, controls=n),
        "wrong_resume": partial(hostile.wrong_resume, controls=n),
        "checkpoints": partial(hostile.checkpoints, controls=n),
        "configs": partial(hostile.configs, controls=n),
        "secrets": partial(hostile.secrets, controls=n),
        "command_line": partial(fuzz.command_line, trials=40 if quick else 500, controls=n),
    }
    few = "killed damaged full read_only preemption numbers memory wrong_resume secrets command_line".split()
    return {name: row for name, row in table.items() if not quick or name in few}


def show(table_rows: list[dict], console: Console) -> None:
    """The table on the terminal."""
    table = Table(
        "fault", "miniGPT", "control", "", title="faults: in how many cases nothing was lost", show_lines=True
    )
    for row in table_rows:
        ours, stock = row["ours"], row["stock"]
        mine = f"{ours['good']} / {ours['of']}" + (f"\n{ours['note']}" if ours["note"] else "")
        theirs = f"{stock['good']} / {stock['of']}\n{stock['note']}" if stock else "not run"
        table.add_row(
            row["fault"], mine, f"{row['control']}\n{theirs}", "holds" if row["holds"] else "[red]DOES NOT HOLD"
        )
    console.print(table)


def main() -> None:
    """Run the rows, print them, write them; exit code 1 when one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few trials, no controls, nothing written")
    parser.add_argument("--rows", nargs="*", help="these rows alone")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    os.environ["OMP_NUM_THREADS"] = "1"  # two trials run side by side
    preload()
    every, begun, found = rows(arguments.quick), time.monotonic(), []
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    base.chmod(0o755)  # some trials run as a user without rights
    for name in arguments.rows or every:
        folder = base / name
        (folder / "here").mkdir(parents=True)
        folder.chmod(0o755)
        row_begun = time.monotonic()
        try:
            done = [row.to_json() for row in every[name](folder / "here")]
        except Exception as error:
            if arguments.quick:
                raise
            ours = Result(0, 1, f"{type(error).__name__}: {error}")
            done = [Row(name, ours, "", None).to_json()]
        for row in done:
            row["seconds"] = round(time.monotonic() - row_begun, 1)
            console.print(f"{row['seconds']:6.1f} s  {row['ours']['good']} / {row['ours']['of']}  {row['fault']}")
        found += done
        shutil.rmtree(other_disk(folder / "here"), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(base, ignore_errors=True)
    show(found, console)
    if not arguments.quick and not arguments.rows:
        from minigpt.runs.summary import git_commit

        report = {
            "date": str(date.today()),
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "machine": f"{os.cpu_count()} cores, {cpu()}",
            "python": platform.python_version(),
            "versions": {m: importlib.import_module(m).__version__ for m in ("torch", "lightning", "hydra", "wandb")},
            "commit": git_commit(),
            "rows": found,
        }
        path = ROOT / f"benchmarks/results/faults_{date.today()}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")
        console.print(f"{report['minutes']} minutes, written to {path.relative_to(ROOT)}")
    sys.exit(0 if all(row["holds"] for row in found) else 1)


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
