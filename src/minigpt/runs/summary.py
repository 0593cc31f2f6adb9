"""summary.json: what a run was and what came of it."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

from minigpt.runs.directory import replace_text
from minigpt.runs.redaction import redact
from minigpt.runs.untrusted import UntrustedFileError, check_types, read_json

SUMMARY = "summary.json"
NUMBER: tuple[type, ...] = (int, float, type(None))
TEXT: tuple[type, ...] = (str, type(None))
TYPES: dict[str, tuple[type, ...]] = {  # of what is read from a summary
    **dict.fromkeys(("status", "error", "text", "wandb_id", "wandb_name", "best_checkpoint", "last_checkpoint"), TEXT),
    **dict.fromkeys(("val_loss_best", "val_bpc_best", "reference_loss", "train_s", "tokens_per_s"), NUMBER),
    **dict.fromkeys(("val_loss_best_step", "parameters", "seed", "tokens", "flops_per_token"), (int, type(None))),
    "steps": (int,),
    "wall_clock_s": (int, float),
    "overrides": (list,),
}


def write_summary(directory: Path, summary: dict[str, Any]) -> None:
    """Put the summary in its place whole, without secrets; numbers that JSON does not know become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else redact(v) for k, v in summary.items()}
    replace_text(directory / SUMMARY, json.dumps(clean, indent=2) + "\n")


def read_summary(directory: Path) -> dict[str, Any] | None:
    """A run's summary, or None when it has none.

    Raises:
        UntrustedFileError: it has one that is damaged. Ignoring it would replace it when the run goes on.
    """
    path = directory / SUMMARY
    if not os.path.lexists(path):
        return None
    summary = read_json(path)
    check_types(summary, TYPES, path)
    if not all(isinstance(override, str) for override in summary.get("overrides", [])):
        raise UntrustedFileError(f"{path} is damaged: overrides is not a list of options")
    return summary


def is_complete(summary: dict[str, Any], max_steps: int = 0) -> bool:
    """Whether a run came to its end, and that was at `max_steps` or later."""
    return summary.get("status") == "completed" and summary.get("steps", 0) >= max_steps


def git_commit() -> str | None:
    """The commit of the code, with `-dirty` when files differ from it; None outside a git checkout."""
    return ask_git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def git_remote() -> str | None:
    """The address that the checkout was cloned from; None where there is none."""
    return ask_git("config", "--get", "remote.origin.url")


def ask_git(*arguments: str) -> str | None:
    """What git says about the checkout of this code; None when it says nothing."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
