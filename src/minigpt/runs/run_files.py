"""The formats of metrics.csv and samples.md, which a resumed run truncates and continues."""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minigpt.runs.directory import replace_text

SAMPLE_HEADING = re.compile(r"^## Step (\d+), validation loss", re.MULTILINE)


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The complete records of a metrics file, as text; the last one may have been cut short by a power failure."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the records after `step`: the resumed run will write them again."""
    records = [record for record in read_metrics(path) if int(record["step"]) <= step]
    if records:
        write_metrics(path, list(records[0]), records)
    else:
        path.unlink(missing_ok=True)


def write_metrics(path: Path, columns: list[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a metrics file, completely or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(records)
    replace_text(path, text.getvalue())


def truncate_samples(path: Path, step: int) -> None:
    """Drop the samples after `step`: the resumed run will write them again."""
    if path.is_file():
        text = path.read_text(encoding="utf-8")
        later = next((m.start() for m in SAMPLE_HEADING.finditer(text) if int(m[1]) > step), len(text))
        replace_text(path, text[:later])


def append_sample(path: Path, step: int, loss: float, text: str) -> None:
    """Add a sample of the model of one step."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"## Step {step}, validation loss {loss:.4f}\n\n```\n{text}\n```\n\n")
