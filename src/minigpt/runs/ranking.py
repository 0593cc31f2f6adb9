"""The ranking of a sweep's jobs and of its configurations, as rows, as CSV and as JSON."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigpt.runs.seeds import compare_best_two, summarize_configurations
from minigpt.runs.summary import read_summary
from minigpt.runs.untrusted import UntrustedFileError

COLUMNS = """
    rank job overrides val_bpc_best val_loss_best reference_loss val_loss_best_step parameters train_s tokens_per_s
    status
""".split()
FURTHER_COLUMNS = "configuration seed error best_checkpoint".split()  # of the files alone


def rank_jobs(sweep_dir: Path) -> list[dict[str, Any]]:
    """One row a job of a sweep, the fewest bits per character first, those without a figure last.

    A job is named by the options that it does not share with all the others; its configuration by those but the seed.
    """
    summaries = {d: read_job(d) for d in sweep_dir.iterdir() if d.is_dir() and d.name.isdecimal()}
    names = dict(zip(summaries, differing_options([s.get("overrides") for s in summaries.values()]), strict=True))
    rows = []
    for directory, summary in summaries.items():
        own = names[directory]
        rows.append(
            {
                "job": int(directory.name),
                "overrides": " ".join(own),
                **{key: summary.get(key) for key in COLUMNS[3:]},
                "configuration": configuration_name(own, summary),
                "seed": seed_of(own, summary),
                **{key: summary.get(key) for key in FURTHER_COLUMNS[2:]},
            }
        )
    rows.sort(key=lambda row: (row["val_bpc_best"] is None, row["val_bpc_best"] or 0.0, row["job"]))
    return [{"rank": place, **row} for place, row in enumerate(rows, start=1)]


def differing_options(overrides: Iterable[list[str] | None]) -> list[list[str]]:
    """Return, for each run, its options that not all runs have; None is a run whose options are unknown.

    One run, or runs with the same options, keep all of them.
    """
    known = [options or [] for options in overrides]
    sets = [set(options) for options in known if options]
    common = set.intersection(*sets) if len(set(map(frozenset, sets))) > 1 else set()
    return [[option for option in options if option not in common] for options in known]


def configuration_name(options: Iterable[str], summary: Mapping[str, Any]) -> str:
    """Return a run's options but its seed, which name its configuration."""
    if "overrides" not in summary:
        return "unknown options"
    return " ".join(option for option in options if not option.lstrip("+").startswith("seed=")) or "all runs"


def seed_of(options: Iterable[str], summary: Mapping[str, Any]) -> int | str | None:
    """Return a run's seed: its summary's, or what was typed where the run did not come that far."""
    typed = [option.partition("=")[2] for option in options if option.lstrip("+").startswith("seed=")]
    return summary.get("seed", typed[-1] if typed else None)


def read_job(directory: Path, missing: str = "left no summary") -> dict[str, Any]:
    """A job's summary, or what is wrong with it: one damaged file must not cost the ranking of all jobs."""
    try:
        return read_summary(directory) or {"status": "failed", "error": missing}
    except UntrustedFileError as error:
        return {"status": "failed", "error": str(error)}


def write_ranking(sweep_dir: Path, rows: list[dict[str, Any]]) -> None:
    """`ranking.csv` and `ranking.json` of the jobs; `configurations.csv` and `.json` where there are several seeds."""
    write_csv(sweep_dir / "ranking.csv", [*COLUMNS, *FURTHER_COLUMNS], rows)
    write_json(sweep_dir / "ranking.json", rows)
    configurations = summarize_configurations(rows)
    if has_several_seeds(configurations):
        columns = [key for key, value in configurations[0].items() if not isinstance(value, list | dict)]
        write_csv(sweep_dir / "configurations.csv", columns, configurations)
        comparison = compare_best_two(configurations)
        write_json(
            sweep_dir / "configurations.json", {"configurations": configurations, "paired_comparison": comparison}
        )


def has_several_seeds(configurations: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any configuration has a mean that is worth its name."""
    return any(entry["seeds"] > 1 for entry in configurations)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the named columns of rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
