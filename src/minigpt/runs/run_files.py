"""The formats of metrics.csv and samples.md, which a resumed run truncates and continues."""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigpt.runs.directory import METRICS, SAMPLES, replace_text
from minigpt.runs.untrusted import UntrustedFileError, read_text

SAMPLE = re.compile(
    r"^## Step (\d{1,18}), validation loss ([\d.]{1,20}|nan|inf).*?$(.*?)(?=^## Step \d|\Z)", re.M | re.S | re.A
)
SAMPLE_HEADING = re.compile(r"^## Step (\d{1,18}), validation loss", re.MULTILINE | re.ASCII)
STEP = re.compile(r"\d{1,18}", re.ASCII)
MAX_METRICS_BYTES = 1 << 27
MAX_COLUMNS = 1000


@dataclass(frozen=True)
class Sample:
    """A sample of the model of one step, with its validation loss as it is written in samples.md."""

    step: int
    loss: str
    text: str


def check_written(directory: Path) -> None:
    """Raise UntrustedFileError if a run's metrics or samples cannot be continued."""
    for _ in read_metrics(directory / METRICS):
        pass
    read_samples(directory / SAMPLES)


def read_metrics(path: Path) -> Iterator[dict[str, str]]:
    """The complete records of a metrics file, as text; the last one may have been cut short by a power failure.

    Raises:
        UntrustedFileError: it is not a metrics file.
    """
    if not os.path.lexists(path):
        return
    text = read_text(path, MAX_METRICS_BYTES)
    rows = csv.reader(text[: text.rfind("\n") + 1].splitlines())
    try:
        columns = next(rows, ["step"])
        if "step" not in columns or len(set(columns)) < len(columns) or len(columns) > MAX_COLUMNS:
            raise UntrustedFileError(f"{path} is damaged: its first line does not name the columns")
        for row in rows:
            record = dict(zip(columns, row, strict=False))
            if len(row) != len(columns) or not STEP.fullmatch(record["step"]):
                raise UntrustedFileError(f"{path} is damaged: line {rows.line_num} is not a record of a step")
            yield record
    except csv.Error as error:
        raise UntrustedFileError(f"{path} is damaged: {error}") from error


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the records after `step`: the resumed run will write them again."""
    records = (record for record in read_metrics(path) if int(record["step"]) <= step)
    if (first := next(records, None)) is not None:
        write_metrics(path, list(first), itertools.chain([first], records))
    else:
        path.unlink(missing_ok=True)


def write_metrics(path: Path, columns: list[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a metrics file, completely or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(records)
    replace_text(path, text.getvalue())


def read_samples(path: Path) -> str:
    """The text of a samples file, empty when there is none. Raises UntrustedFileError."""
    return read_text(path) if os.path.lexists(path) else ""


def iter_samples(text: str) -> Iterator[Sample]:
    """The samples of a samples file, oldest first."""
    for match in SAMPLE.finditer(text):
        body = match[3].strip().removeprefix("```").removesuffix("```").strip("\n")
        yield Sample(int(match[1]), match[2], body)


def truncate_samples(path: Path, step: int) -> None:
    """Drop the samples after `step`: the resumed run will write them again."""
    if text := read_samples(path):
        later = next((m.start() for m in SAMPLE_HEADING.finditer(text) if int(m[1]) > step), len(text))
        replace_text(path, text[:later])


def append_sample(path: Path, step: int, loss: float, text: str) -> None:
    """Add a sample of the model of one step."""
    with path.open("a", encoding="utf-8") as file:
        file.write(f"## Step {step}, validation loss {loss:.4f}\n\n```\n{text}\n```\n\n")
