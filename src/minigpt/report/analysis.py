"""What a report says about several runs: which options differ, how much each matters, what the runs have cost."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from minigpt.report.sources import ReportedRun
from minigpt.runs.seeds import format_figure, mean_and_error

NOT_COMPARED = ("paths.", "seed", "data.seed", "name", "tags", "resume")
DEFAULT = "(default)"


@dataclass
class Table:
    """A table of a page; the first cell of each row is its heading.

    Attributes:
        caption: what it shows.
        columns: the headings.
        rows: text cells.
        best: the index of the row that is marked.
    """

    WORDS: ClassVar = {
        "configuration",
        "status",
        "option",
        "value",
        "values",
        "character",
        "token",
    }  # columns that are no numbers
    caption: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    best: int | None = None


def show(value: Any) -> str:
    """Return a cell: four decimals for small numbers, separators for large ones."""
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def show_mean(entry: Mapping[str, Any], figure: str) -> str:
    """Return the mean of a configuration's figure, with its standard error where there is one."""
    values = [entry[figure], entry[f"{figure}_stderr"]]
    return " ± ".join(format_figure(figure, value) for value in values if value is not None) or "–"


def configurations_table(configurations: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each configuration, the best first."""
    columns = ["configuration", "bits per character", "validation loss", "training time [s]", "tokens/s", "seeds"]
    rows = [
        [
            entry["configuration"],
            *(show_mean(entry, figure) for figure in ("val_bpc_best", "val_loss_best", "train_s", "tokens_per_s")),
            f"{entry['seeds']} of {entry['runs']}" if entry["seeds"] != entry["runs"] else show(entry["seeds"]),
        ]
        for entry in configurations
    ]
    caption = "Mean ± standard error over the seeds of completed runs, the fewest bits per character first"
    return Table(caption, columns, rows, best=0)


def runs_table(runs: Sequence[ReportedRun]) -> Table:
    """One row for each run, the best first."""
    columns = ["run", "configuration", "seed", "bits per character", "validation loss", "at step", "parameters"]
    rows = [
        [
            row["job"],
            row["configuration"],
            show(row["seed"]),
            *(show(row[key]) for key in ("val_bpc_best", "val_loss_best", "val_loss_best_step", "parameters")),
            row["status"],
        ]
        for row in (run.row() for run in runs)
    ]
    if len(runs) == 1:  # nothing tells it apart
        columns, rows = [c for c in columns if c != "configuration"], [[rows[0][0], *rows[0][2:]]]
    caption = "Each run, the fewest bits per character first" if len(runs) > 1 else "The result of the run"
    return Table(caption, [*columns, "status"], rows, best=0)


def cost_table(runs: Sequence[ReportedRun]) -> Table:
    """Time, tokens and floating-point operations of each run."""
    total, rows = Counter[str](), []
    for run in runs:
        flops = run.summary.get("flops_per_token")
        tokens = run.summary.get("tokens")
        cost = {
            "train_s": run.summary.get("train_s"),
            "wall_clock_s": run.summary.get("wall_clock_s"),
            "tokens": tokens,
            "flops": float(flops) * tokens if flops and tokens else None,
        }
        total.update({key: value for key, value in cost.items() if value is not None})
        name = f"{run.directory.name}: {run.configuration}" if len(runs) > 1 else run.directory.name
        rows.append([name, *cost_cells(cost), show(run.summary.get("tokens_per_s"))])
    if len(runs) > 1:
        rows.append(["all runs", *cost_cells(total), "–"])
    columns = ["run", "training [s]", "in all [s]", "tokens", "FLOPs", "tokens/s"]
    return Table("Time, trained tokens, and floating-point operations of the training steps", columns, rows)


def cost_cells(cost: Mapping[str, Any]) -> list[str]:
    """Return the cells of one row of costs."""
    seconds = [f"{cost[key]:,.1f}" if cost.get(key) is not None else "–" for key in ("train_s", "wall_clock_s")]
    flops = cost.get("flops")
    return [*seconds, show(cost.get("tokens")), f"{flops:.2e}" if flops is not None else "–"]


def config_table(runs: Sequence[ReportedRun]) -> Table:
    """All options of one run, or the options that differ between several, each value with its number of runs."""
    if len(runs) == 1:
        rows = [[key, show_option(value)] for key, value in sorted(runs[0].config.items())]
        return Table("All options of the run", ["option", "value"], rows)
    known = [run.config for run in runs if run.config]
    rows = []
    for key in sorted(set().union(*known)):
        counts = Counter(show_option(config.get(key, "(not there)")) for config in known)
        if len(counts) > 1 and not key.startswith(NOT_COMPARED):
            rows.append([key, ", ".join(f"{value} ({number})" for value, number in counts.most_common(20))])
    return Table("Options that differ, each value with its number of runs", ["option", "values"], rows)


def show_option(value: Any) -> str:
    """Return an option's value as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def varied_options(runs: Sequence[ReportedRun]) -> dict[str, list[str]]:
    """Return the typed options that differ, but the seed: their names, each with its value for every run."""
    typed: list[dict[str, str]] = []
    for run in runs:
        parts = [option.lstrip("+").partition("=") for option in run.options if not option.startswith("~")]
        typed.append({name: value for name, _, value in parts})
    names = dict.fromkeys(name for options in typed for name in options if name != "seed")
    varied = {name: [options.get(name, DEFAULT) for options in typed] for name in names}
    return {name: values for name, values in varied.items() if len(set(values)) > 1}


def importances(options: Mapping[str, Sequence[str]], losses: Sequence[float]) -> dict[str, float]:
    """Return the share of the losses' variance that lies between the values of each option (eta squared).

    It looks at one option at a time: what only a combination does belongs to none of them.
    """
    mean = statistics.fmean(losses)
    total = sum((loss - mean) ** 2 for loss in losses)
    shares = {}
    for name, values in options.items():
        groups: dict[str, list[float]] = {}
        for value, loss in zip(values, losses, strict=True):
            groups.setdefault(value, []).append(loss)
        between = sum(len(group) * (statistics.fmean(group) - mean) ** 2 for group in groups.values())
        shares[name] = between / total if total else 0.0
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def cell_means(first: Sequence[str], second: Sequence[str], losses: Sequence[float]) -> list[dict[str, Any]]:
    """Return the mean loss and its error for each pair of values of two options."""
    cells: dict[tuple[str, str], list[float]] = {}
    for one, other, loss in zip(first, second, losses, strict=True):
        cells.setdefault((one, other), []).append(loss)
    means = [(key, *mean_and_error(values)) for key, values in cells.items()]
    return [{"first": one, "second": other, "mean": mean, "error": error} for (one, other), mean, error in means]


def notes_on(runs: Sequence[ReportedRun]) -> list[str]:
    """Return what a reader must know: other texts or tokenizers, and what could not be read."""
    notes = []
    texts = {run.text for run in runs if run.text is not None}
    tokenizers = {run.tokenizer for run in runs if run.config}
    if len(texts) > 1:
        notes.append(
            f"The runs are on different texts ({', '.join(sorted(texts))}). They are compared in bits per character; "
            "a lower figure may be an easier text."
        )
    if len(tokenizers) > 1:
        notes.append(
            f"The runs have different tokenizers ({', '.join(sorted(tokenizers))}). They are compared in bits per "
            "character; their losses per token do not compare."
        )
    return notes + [problem for run in runs for problem in run.problems]


def compares_by_characters(runs: Sequence[ReportedRun]) -> bool:
    """Whether losses per token do not compare, so that curves are of bits per character."""
    return len({(run.text, run.tokenizer) for run in runs if run.config and run.text is not None}) > 1
