"""`make mutants`: how many of a sample of small deliberate bugs the default test suite notices.

A survivor is a bug that every test passes. Those that change no behaviour are explained in equivalent.yaml; they count
as survivors all the same. The table is printed and written as JSON to benchmarks/results/.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Container, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.mutants.generate import PACKAGES, ROOT, Mutant, all_mutants, explanations, named_mutants, sample
from benchmarks.mutants.trial import Outcome, copy_tree, preload, run_tests, stages, try_mutant
from rich.console import Console
from rich.table import Table

GOAL = 95  # percent
NEWEST = ROOT / "build/mutants.json"


def choose(arguments: argparse.Namespace) -> list[Mutant]:
    """The mutants that the command line asks for."""
    every = list(all_mutants())
    if arguments.survivors:
        wanted = {row["id"] for row in json.loads(NEWEST.read_text())["mutants"] if row["status"] == "survived"}
        return [m for m in (*named_mutants(), *every) if m.id in wanted]
    if arguments.only:
        pattern = re.compile(arguments.only)
        found = [m for m in (*named_mutants(), *every) if pattern.search(m.id)]
        return sample(found, arguments.sample, arguments.seed) if arguments.sample else found
    return named_mutants() + sample(every, arguments.sample or 30, arguments.seed)


def measure_baseline(base: Path, packages: set[str], known: Container[str] = ()) -> dict[str, float]:
    """Run the tests of some packages, or all for none, on the tree as it is, but for the files that are known.

    Returns:
        The seconds of each test file.

    Raises:
        SystemExit: a test fails without any bug.
    """
    seconds: dict[str, float] = {}
    for files in stages(base / "tree", "model/gpt.py"):
        chosen = [f for f in files if f not in known and (not packages or f.split("/")[1] in packages)]
        outcome, found = run_tests(base, chosen, 3600)
        if outcome.status != "survived":
            sys.exit(f"without any bug: {outcome.status} {outcome.by}; see {base}/output.txt")
        seconds |= found
    return seconds


def trials(mutants: list[Mutant], base: Path, arguments: argparse.Namespace) -> Iterator[tuple[Mutant, Outcome]]:
    """Try all mutants with the tests nearest to them, then those that survive, and are not explained, with all others.

    Those that start commands take long: they run, also without any bug, only if there is such a mutant.
    """
    seconds = measure_baseline(base, {m.package for m in mutants})
    explained, survivors = explanations(), []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("fork")) as pool:
        for mutant, outcome in try_all(pool, mutants, base, seconds, near=True):
            if outcome.status == "survived" and mutant.id not in explained and not arguments.near:
                survivors.append(mutant)
            else:
                yield mutant, outcome
        if survivors:
            seconds |= measure_baseline(base, set(), seconds)
            yield from try_all(pool, survivors, base, seconds, near=False)


def try_all(
    pool: ProcessPoolExecutor, mutants: list[Mutant], base: Path, seconds: dict[str, float], *, near: bool
) -> Iterator[tuple[Mutant, Outcome]]:
    """Try mutants, some at a time, in the order in which they are done; the arguments are those of `try_mutant`."""
    futures = {pool.submit(try_mutant, m, base / "tree", seconds, near=near): m for m in mutants}
    for future in as_completed(futures):
        yield futures[future], future.result()


def summarize(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Counts of each package and of all."""
    found = []
    for package in (*PACKAGES, "all"):
        own = [row for row in rows if package in (row["package"], "all")]
        survived = sum(row["status"] == "survived" for row in own)
        if own:
            counts = {"mutants": len(own), "killed": len(own) - survived, "survived": survived}
            found.append({"package": package, **counts, "percent": round(100 * (1 - survived / len(own)), 1)})
    return found


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table, and what survived."""
    table = Table("package", "mutants", "killed", "survived", "percent")
    for row in summarize(rows):
        table.add_row(*map(str, row.values()), end_section=row["package"] == PACKAGES[-1])
    console.print(table)
    for row in (row for row in rows if row["status"] == "survived"):
        console.print(f"\n{row['id']}\n{row['diff']}\n{row['explanation'] or 'NOT EXPLAINED'}", markup=False)


def write_report(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Keep the results for --survivors; those of a complete run are committed."""
    NEWEST.parent.mkdir(exist_ok=True)
    NEWEST.write_text(json.dumps(report, indent=2) + "\n")
    if not (arguments.only or arguments.survivors or arguments.near):
        from benchmarks.report import write_results  # imports the source itself, as no trial may see it

        write_results("mutants", report)


def main() -> None:
    """Try the mutants; the exit code is 1 if too many survive, or one without an explanation."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--sample", type=int, help="mutants of each package; 30, or with --only all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", metavar="PATTERN", help="mutants whose id has this regular expression")
    parser.add_argument("--survivors", action="store_true", help="those that survived the newest run")
    parser.add_argument(
        "--near", action="store_true", help="run the tests that import its module alone; nothing is written"
    )
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    mutants, explained, rows, begin = choose(arguments), explanations(), [], time.monotonic()
    preload()
    base = Path(tempfile.mkdtemp(prefix="mutants-"))
    base.chmod(0o755)  # some fault tests run the source as a user without privileges
    copy_tree(base / "tree")
    diffs = {mutant.id: mutant.diff() for mutant in mutants}  # now: the checkout may change
    for number, (mutant, outcome) in enumerate(trials(mutants, base, arguments), start=1):
        done = f"{number}/{len(mutants)} {outcome.seconds:6.1f} s  {outcome.status:8}  {mutant.id}  {outcome.by}"
        console.print(done, markup=False, soft_wrap=True)
        row = {"id": mutant.id, "package": mutant.package, **vars(outcome), "diff": diffs[mutant.id]}
        rows.append(row | {"explanation": explained.get(mutant.id)})
    shutil.rmtree(base, ignore_errors=True)
    rows.sort(key=lambda row: [m.id for m in mutants].index(row["id"]))
    minutes = round((time.monotonic() - begin) / 60, 1)
    console.print(f"{minutes} minutes with {arguments.jobs} of {os.cpu_count()} processors")
    show(rows, console)
    options = {"sample": arguments.sample, "seed": arguments.seed, "jobs": arguments.jobs, "minutes": minutes}
    write_report({**options, "packages": summarize(rows), "mutants": rows}, arguments)
    survivors = [row for row in rows if row["status"] == "survived"]
    few = 100 * (1 - len(survivors) / len(rows)) >= GOAL
    sys.exit(0 if few and all(row["explanation"] for row in survivors) else 1)


if __name__ == "__main__":
    main()
