"""The commands that a finished command suggests, as they are typed into a shell."""

import shlex
from pathlib import Path


def evaluate_command(run: str | Path) -> str:
    """Score a run once more."""
    return f"python src/evaluate.py run={shlex.quote(str(run))}"


def generate_command(run: str | Path, prompt: object) -> str:
    """Continue a prompt with the model of a run or a file.

    Args:
        run: what `run=` takes.
        prompt: an example. It may come from anybody's file, so that nothing but a printable line of it is shown.
    """
    text = "".join(c for c in str(prompt or "") if c.isprintable()).strip(" '\"")
    return f"python src/generate.py run={shlex.quote(str(run))}" + (f" prompt={shlex.quote(text)}" if text else "")


def resume_command(run: str | Path, max_steps: int | None = None) -> str:
    """Continue a run; up to another step where it is complete."""
    more = "" if max_steps is None else f" trainer.max_steps={max_steps}"
    return f"python src/train.py resume={shlex.quote(str(run))}{more}"
