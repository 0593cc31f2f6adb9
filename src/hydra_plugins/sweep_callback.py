"""Hydra's callback around a sweep: a ranking at its end, and nothing left of a sweep that never began."""

import atexit
import contextlib
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minigpt.cli import refuse
from minigpt.config.errors import ConfigError
from minigpt.report import load_writer
from minigpt.runs.commands import fold_command, generate_command
from minigpt.runs.ranking import COLUMNS, has_several_seeds, rank_jobs, write_ranking
from minigpt.runs.seeds import FIGURES, compare_best_two, describe_comparison, format_figure, summarize_configurations
from minigpt.runs.summary import read_summary
from minigpt.runs.untrusted import first_line

OFTEN_EQUAL = {"reference_loss", "val_loss_best_step", "parameters", "status"}
HEADINGS = {"val_bpc_best": "val bpc", "val_loss_best": "val loss", "val_loss_best_step": "at step"}
LESS_USED, WIDE = {"rank", "tokens_per_s"}, 100  # columns that need more characters than this


class SweepRanking(Callback):
    """Hydra calls it before and after a multirun.

    Args:
        report: write report.html, where the plotting libraries are installed.
    """

    def __init__(self, report: bool = True) -> None:
        self.report = report

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        atexit.register(remove_unstarted, Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the ranking; exit code 1 when a job failed, 2 when there was none."""
        if "trainer" not in config:  # of the other commands, whose jobs leave nothing to be ranked
            return
        sweep_dir = Path(config.hydra.sweep.dir)
        rows = rank_jobs(sweep_dir)
        if not rows:  # Hydra turns an exception in a callback into a warning
            refuse(ConfigError("the sweep has no jobs: a glob in it matches nothing"))
        write_ranking(sweep_dir, rows)
        show_ranking(rows, sweep_dir, f"{config.paths.log_dir}/wandb/wandb")
        if self.report:
            report_sweep(sweep_dir, config.paths.data_dir)
        if any(row["status"] != "completed" for row in rows):
            sys.exit(1)


def show_ranking(rows: list[dict[str, Any]], sweep_dir: Path, wandb_dir: str) -> None:
    """The ranking on the terminal, and how to go on from the best job."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    configurations = summarize_configurations(rows)
    grouped = has_several_seeds(configurations)
    console.print(configurations_table(configurations, rows, console) if grouped else runs_table(rows, console))
    if comparison := describe_comparison(compare_best_two(configurations)):
        console.print(escape(comparison), soft_wrap=True)
    for row in rows:
        if row["error"]:
            console.print(f"job {row['job']} {row['status']}: {escape(row['error'])}", style="red")
    names = "ranking.csv, ranking.json, configurations.csv and configurations.json"
    console.print(f"written to {sweep_dir}: {names if grouped else 'ranking.csv and ranking.json'}", soft_wrap=True)
    if rows and rows[0]["best_checkpoint"]:
        best = sweep_dir / str(rows[0]["job"])
        command = generate_command(best, (read_summary(best) or {}).get("example_prompt"))
        for line in fold_command("the best", command, console.width if console.is_terminal else sys.maxsize):
            console.print(line, soft_wrap=True, markup=False)
    if Path(wandb_dir).is_dir():
        console.print(f"compare   wandb leet {wandb_dir}")


def report_sweep(sweep_dir: Path, data_dir: str) -> None:
    """Write the sweep's report; one line says where it is, or why there is none."""
    try:
        page = load_writer()(str(sweep_dir), sweep_dir, data_dir)
        print(f"report    {page}")
    except Exception as error:  # the exit code of a sweep is that of its jobs, whatever is wrong with its report
        print(f"no report {first_line(error)}")


def runs_table(rows: list[dict[str, Any]], console: Console) -> Table:
    """One line for each run, the best first."""
    table = make_table(f"{len(rows)} runs, the best first", columns := shown_columns(rows, console.width))
    for row in rows:
        table.add_row(*(show(row[column], column) for column in columns), style=style_of(row))
    return table


def configurations_table(configurations: list[dict[str, Any]], rows: list[dict[str, Any]], console: Console) -> Table:
    """One line for each configuration, mean ± standard error (number of seeds), and its runs below it."""
    title = f"{len(configurations)} configurations of {len(rows)} runs, the best first: mean ± standard error (seeds)"
    table = make_table(title, columns := shown_columns(rows, console.width))
    for entry in configurations:
        name = entry["configuration"]
        cells = {"rank": entry["rank"], "overrides": name}
        cells |= {figure: show_mean(entry, figure) for figure in FIGURES}
        table.add_row(*(show(cells.get(column, ""), column) for column in columns), style="bold")
        for row in rows:
            if row["configuration"] == name:
                cells = row | {"rank": "", "overrides": f"  seed={row['seed']}"}
                table.add_row(*(show(cells[column], column) for column in columns), style=style_of(row) or "dim")
        table.add_section()
    return table


def make_table(title: str, columns: list[str]) -> Table:
    """An empty table with the headings of these columns."""
    table = Table(title=title, box=box.SIMPLE, pad_edge=False)
    for column in columns:
        name = HEADINGS.get(column, column.replace("_", " "))
        table.add_column(name, overflow="fold", no_wrap=column not in ("overrides", "status"))
    return table


def shown_columns(rows: list[dict[str, Any]], width: int) -> list[str]:
    """The columns of a terminal that is `width` characters wide; some only where they tell the runs apart."""
    left_out = {c for c in OFTEN_EQUAL if len({row[c] for row in rows}) == 1} | (LESS_USED if width < WIDE else set())
    return [c for c in COLUMNS if c not in left_out]


def style_of(row: dict[str, Any]) -> str | None:
    """Red for a run that did not complete."""
    return None if row["status"] == "completed" else "red"


def show_mean(entry: dict[str, Any], figure: str) -> str:
    """The mean of a configuration's figure, with its standard error; the number of seeds where it is the loss."""
    mean, error = entry[figure], entry[f"{figure}_stderr"]
    number = f" ({entry['seeds']})" if figure == "val_bpc_best" else ""
    return show(mean, figure) + (f" ± {show(error, figure)}" if error is not None else "") + number


def show(value: Any, column: str) -> str:
    """A table's cell."""
    if isinstance(value, float):
        return format_figure(column, value)
    return "-" if value is None else escape(str(value))


def remove_unstarted(sweep_dir: Path) -> None:
    """Remove a sweep's directory when it holds nothing but Hydra's note of what was asked for and empty ones."""
    for job in sweep_dir.glob("*/"):
        with contextlib.suppress(OSError):  # it is not empty
            job.rmdir()
    if sweep_dir.is_dir() and [p.name for p in sweep_dir.iterdir()] == ["multirun.yaml"]:
        (sweep_dir / "multirun.yaml").unlink()
        sweep_dir.rmdir()
