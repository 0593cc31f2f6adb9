"""The commands that a finished command suggests, as they are typed into a shell."""

import re
import shlex
import sys
from pathlib import Path


def program(command: str) -> str:
    """How a command is started here: from a checkout, or from an installed package."""
    is_installed = Path(sys.argv[0]).parent.name == "commands"  # see minigpt/api.py
    return f"minigpt {command}" if is_installed else f"python src/{command}.py"


def evaluate_command(run: str | Path) -> str:
    """Score a run once more."""
    return f"{program('evaluate')} run={shlex.quote(str(run))}"


def generate_command(run: str | Path, prompt: object) -> str:
    """Continue a prompt with the model of a run or a file.

    Args:
        run: what `run=` takes.
        prompt: an example. It may come from anybody's file, so that nothing but a printable line of it is shown.
    """
    text = "".join(c for c in str(prompt or "") if c.isprintable()).strip(" '\"")
    return f"{program('generate')} run={shlex.quote(str(run))}" + (f" prompt={shlex.quote(text)}" if text else "")


def resume_command(run: str | Path, max_steps: int | None = None) -> str:
    """Continue a run; up to another step where it is complete."""
    more = "" if max_steps is None else f" trainer.max_steps={max_steps}"
    return f"{program('train')} resume={shlex.quote(str(run))}{more}"


def fold_command(name: str, command: str, width: int) -> list[str]:
    """A command as lines of a width, where its words allow it, each but the last continued by a backslash."""
    lines = [f"{name:9}"]
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+""", command):
        if len(lines[-1]) + len(word) + 3 > width and lines[-1].strip() not in ("", name):
            lines[-1] += " \\"
            lines.append(" " * 9)
        lines[-1] += f" {word}"
    return lines
