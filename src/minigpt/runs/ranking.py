"""The ranking of a sweep's jobs, as rows, as CSV and as JSON."""

import csv
import json
from pathlib import Path
from typing import Any

from minigpt.runs.summary import read_summary
from minigpt.runs.untrusted import UntrustedFileError

COLUMNS = """
    rank job overrides val_bpc_best val_loss_best reference_loss val_loss_best_step parameters train_s tokens_per_s
    status
""".split()


def rank_jobs(sweep_dir: Path) -> list[dict[str, Any]]:
    """One row a job of a sweep, the fewest bits per character first, those without a figure last.

    A job is named by the options that it does not share with all the others.
    """
    summaries = {d: read_job(d) for d in sweep_dir.iterdir() if d.is_dir() and d.name.isdecimal()}
    common = set.intersection(*(set(s.get("overrides", [])) for s in summaries.values())) if summaries else set()
    rows = []
    for directory, summary in summaries.items():
        own = [o for o in summary.get("overrides", []) if len(summaries) == 1 or o not in common]
        rows.append(
            {
                "job": int(directory.name),
                "overrides": " ".join(own),
                **{key: summary.get(key) for key in COLUMNS[3:]},
                "error": summary.get("error"),
                "best_checkpoint": summary.get("best_checkpoint"),
            }
        )
    rows.sort(key=lambda row: (row["val_bpc_best"] is None, row["val_bpc_best"] or 0.0, row["job"]))
    return [{"rank": place, **row} for place, row in enumerate(rows, start=1)]


def read_job(directory: Path, missing: str = "left no summary") -> dict[str, Any]:
    """A job's summary, or what is wrong with it: one damaged file must not cost the ranking of all jobs."""
    try:
        return read_summary(directory) or {"status": "failed", "error": missing}
    except UntrustedFileError as error:
        return {"status": "failed", "error": str(error)}


def write_ranking(sweep_dir: Path, rows: list[dict[str, Any]]) -> None:
    """`ranking.csv` and `ranking.json` in the sweep's directory."""
    (sweep_dir / "ranking.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    with (sweep_dir / "ranking.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "error", "best_checkpoint"])
        writer.writeheader()
        writer.writerows(rows)
