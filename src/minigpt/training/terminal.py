"""The output of a run on the terminal; one console, so that the progress bar and all else share the screen."""

import contextlib
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.tree import Tree
from torch import nn

from minigpt.model.size import count_active_parameters, count_parameters
from minigpt.runs.commands import fold_command

WHOLE_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}  # options of textwrap

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=160)  # a log file has no width; 80 would cut the lines


@contextlib.contextmanager
def unmuted() -> Iterator[None]:
    """Within this context the console prints although the run is quiet: a warning, or the result."""
    quiet, console.quiet = console.quiet, False
    try:
        yield
    finally:
        console.quiet = quiet


def show_config(config: Mapping[str, Any]) -> None:
    """The composed configuration as a tree."""
    tree = Tree("[bold]configuration")
    grow(tree, config)
    console.print(tree)


def grow(tree: Tree, config: Mapping[str, Any]) -> None:
    """Add a mapping to a tree: plain values on one line, then a branch for each component."""
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping) and not k.startswith("_")}
    if plain:
        tree.add("  ".join(f"{k}=[cyan]{escape(str(v))}[/]" for k, v in plain.items()))
    for key, value in config.items():
        if isinstance(value, Mapping):
            name = str(value.get("_target_", "")).rpartition(".")[2]
            grow(tree.add(f"[bold]{key}[/] {name}"), value)


def show_model(model: nn.Module, flops_per_token: int) -> None:
    """The submodules of a model and their sizes."""
    table = Table(box=None, pad_edge=False)
    table.add_column(type(model).__name__, style="bold")
    table.add_column("parameters", justify="right")
    for name, module in model.named_children():
        size = count_parameters(module)
        if size:
            repeats = f" ({len(module)} x {count_parameters(module[0]):,})" if isinstance(module, nn.ModuleList) else ""
            table.add_row(f"  {name}{repeats}", f"{size:,}")
    total, active = count_parameters(model), count_active_parameters(model)
    table.add_row("  total (tied weights once)", f"{total:,}")
    if active < total:
        table.add_row("  active for each token", f"{active:,}")
    table.add_row("  floating-point operations per trained token", f"{flops_per_token:,}")
    console.print(table)


def show_end(status: str, result: Sequence[str], commands: Sequence[tuple[str, str]]) -> None:
    """The result of a run, and the commands that use it. A terminal's width is kept in a way that a shell can read.

    Of a quiet run the result alone.
    """
    width = console.width if console.is_terminal else sys.maxsize
    console.rule(f"[bold]{status}", style="green" if status == "completed" else "yellow")
    with unmuted():
        for line in (line for text in result for line in textwrap.wrap(text, width, **WHOLE_WORDS)):
            console.print(line, soft_wrap=True, markup=False)
    for line in (line for name, command in commands for line in fold_command(name, command, width)):
        console.print(line, soft_wrap=True, markup=False)
    line = "-" if console.options.ascii_only else "─"  # a rule without a title does not see to that itself
    console.rule(characters=line, style="green" if status == "completed" else "yellow")


def show_warning(warning: str | None) -> None:
    """A warning in a box."""
    if warning is not None:
        with unmuted():
            console.print(Panel.fit(warning, border_style="yellow"))
