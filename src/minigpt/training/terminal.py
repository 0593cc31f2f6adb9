"""What a run shows on the terminal; one console, so that the progress bar and everything else share the screen."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.tree import Tree
from torch import nn

from minigpt.model.gpt import count_active_parameters, count_parameters

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=160)  # a log file has no width; 80 would cut the lines


def show_config(config: Mapping[str, Any]) -> None:
    """The composed configuration as a tree."""
    tree = Tree("[bold]configuration")
    grow(tree, config)
    console.print(tree)


def grow(tree: Tree, config: Mapping[str, Any]) -> None:
    """Hang a mapping's entries on a tree: plain values on one line, then a branch for each part."""
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping) and not k.startswith("_")}
    if plain:
        tree.add("  ".join(f"{k}=[cyan]{escape(str(v))}[/]" for k, v in plain.items()))
    for key, value in config.items():
        if isinstance(value, Mapping):
            name = str(value.get("_target_", "")).rpartition(".")[2]
            grow(tree.add(f"[bold]{key}[/] {name}"), value)


def show_model(model: nn.Module, flops_per_token: int) -> None:
    """The model's parts and their sizes."""
    table = Table(box=None, pad_edge=False)
    table.add_column(type(model).__name__, style="bold")
    table.add_column("parameters", justify="right")
    for name, part in model.named_children():
        size = count_parameters(part)
        if size:
            repeats = f" ({len(part)} x {count_parameters(part[0]):,})" if isinstance(part, nn.ModuleList) else ""
            table.add_row(f"  {name}{repeats}", f"{size:,}")
    every, active = count_parameters(model), count_active_parameters(model)
    table.add_row("  in all (tied weights once)", f"{every:,}")
    if active < every:
        table.add_row("  of these, used by each token", f"{active:,}")
    table.add_row("  floating-point operations per trained token", f"{flops_per_token:,}")
    console.print(table)


def show_end(status: str, lines: list[str]) -> None:
    """What came of a run. Long lines are left whole, so that commands can be copied."""
    console.rule(f"[bold]{status}", style="green" if status == "completed" else "yellow")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)
    console.rule(style="green" if status == "completed" else "yellow")


def show_notice(notice: str | None) -> None:
    """What must not be overlooked, in a box."""
    if notice is not None:
        console.print(Panel.fit(notice, border_style="yellow"))
