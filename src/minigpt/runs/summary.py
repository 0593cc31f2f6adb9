"""summary.json: what a run was and what came of it."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

from minigpt.runs.directory import replace_text
from minigpt.runs.redaction import redact

SUMMARY = "summary.json"


def write_summary(directory: Path, summary: dict[str, Any]) -> None:
    """Put the summary in its place whole, without secrets; numbers that JSON does not know become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else redact(v) for k, v in summary.items()}
    replace_text(directory / SUMMARY, json.dumps(clean, indent=2) + "\n")


def read_summary(directory: Path) -> dict[str, Any] | None:
    """A run's summary, or None when it has none that can be read."""
    try:
        return json.loads((directory / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_complete(summary: dict[str, Any], max_steps: int = 0) -> bool:
    """Whether a run came to its end, and that was at `max_steps` or later."""
    return summary.get("status") == "completed" and summary.get("steps", 0) >= max_steps


def git_commit() -> str | None:
    """The commit of the code, with `-dirty` when files differ from it; None outside a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
