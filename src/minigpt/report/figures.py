"""The figures of a report, as Vega-Lite specifications made with Altair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from minigpt.report.analysis import cell_means, compares_by_characters, importances, varied_options
from minigpt.report.sources import ReportedRun

MAX_POINTS = 6000  # of one figure, over all runs: the page stays small
MAX_DOTS = 400  # of one figure: with more points, its curves are plain lines
MAX_COLORS = 8
HEIGHT, STATIC_WIDTH = 320, 720  # pixels
TITLES = {"train/loss": "Training loss", "val/loss": "Validation loss", "val/bpc": "Bits per character"}
UNITS = {"train/loss": "nats per token", "val/loss": "nats per token", "val/bpc": "bits per character"}


def theme(text: str, grid: str, background: str | None, category: Sequence[str]) -> dict[str, Any]:
    """Return the colors of a figure as a Vega-Lite configuration."""
    axis = {"labelColor": text, "titleColor": text, "gridColor": grid, "domainColor": grid, "tickColor": grid}
    return {
        "background": background,
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": axis | {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        "legend": {"labelColor": text, "titleColor": text, "labelFontSize": 12, "labelLimit": 240, "columns": 4},
        "text": {"color": text},
        "bar": {"color": category[0]},
        "line": {"color": category[0]},
        "point": {"color": category[0]},
        "range": {"category": list(category)},
    }


LIGHT_COLORS = ["#d55e00", "#0072b2", "#00835f", "#b3508a", "#7a6a00", "#3b8bb8", "#8a5a2b", "#5f5f6e"]
DARK_COLORS = ["#ff9149", "#5cb8f5", "#3fd0a4", "#ee9ccb", "#e6d54a", "#a3d4f0", "#d3a57a", "#b9b9c9"]
OTHERS = "#8a8a94"  # what is not the best: visible on light and dark pages
LIGHT = theme("#333", "#ddd", None, LIGHT_COLORS)
DARK = theme("#ddd", "#444", None, DARK_COLORS)
STATIC = LIGHT | {"background": "white"}


@dataclass
class Figure:
    """A figure of a page.

    Attributes:
        name: of its files.
        title: its heading.
        description: what it shows, for who does not see it.
        spec: the Vega-Lite specification, as wide as its container.
    """

    name: str
    title: str
    description: str
    spec: dict[str, Any]


def make_figures(runs: Sequence[ReportedRun]) -> list[Figure]:
    """Return the figures that these runs, the best first, have data for."""
    validation = "val/bpc" if compares_by_characters(runs) else "val/loss"
    figures = [curves(runs, name) for name in (validation, "train/loss") if any(name in run.curves for run in runs)]
    compared = [run for run in runs if run.row()["status"] == "completed" and run.row()["val_bpc_best"] is not None]
    options = varied_options(compared)
    losses = [run.row()["val_bpc_best"] for run in compared]
    if len(options) == 2:
        figures.append(heat_map(options, losses))
    elif len(options) > 2:
        figures += [parallel_coordinates(options, losses), importance_bars(options, losses)]
    return figures


def finish(name: str, title: str, description: str, chart: alt.TopLevelMixin, height: int) -> Figure:
    """Return a figure that is as wide as its container."""
    chart = chart.properties(width="container", height=height, description=description)
    return Figure(name, title, description, chart.to_dict(validate=False))  # the tests validate it


def thin(points: Sequence[tuple[int, float]], number: int) -> list[tuple[int, float]]:
    """Return at most about `number` points of a curve, its first and its last among them."""
    stride = max(1, -(-len(points) // max(2, number)))
    return [*points[:-1:stride], *points[-1:]]


def curves(runs: Sequence[ReportedRun], metric: str) -> Figure:
    """A metric against the step: one line for each run, colored by configuration, the best run's thicker."""
    best = next(run for run in runs if metric in run.curves)
    names = list(dict.fromkeys(run.configuration for run in runs))
    values = [
        {"step": step, "value": float(f"{value:.5g}"), "configuration": run.configuration, "run": name}
        for run, name in [(run, label(run)) for run in runs]
        for step, value in thin(run.curves.get(metric, []), MAX_POINTS // len(runs))
    ]
    dots = len(values) <= MAX_DOTS
    base = alt.Chart(alt.NamedData("points")).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=6, format=",d")),
        y=alt.Y("value:Q", title=UNITS[metric], scale=alt.Scale(zero=False, nice=True)),
        detail="run:N",
        color=curve_color(names),
        tooltip=["run:N", *(["step:Q", alt.Tooltip("value:Q", format=".4f")] if dots else [])],
    )
    thick = base.mark_line(strokeWidth=3.5, point={"size": 30} if dots else False)
    chart = thick.transform_filter(alt.datum.run == label(best))
    if len(runs) > 1:
        others = base.mark_line(strokeWidth=1.2, strokeOpacity=0.7, point={"size": 8} if dots else False)
        chart = alt.layer(others.transform_filter(alt.datum.run != label(best)), chart)
    figure = finish(metric.replace("/", "_"), TITLES[metric], describe_curves(best, names, runs, metric), chart, HEIGHT)
    figure.spec["datasets"] = {"points": values}  # added last, since Altair would validate each point
    return figure


def describe_curves(best: ReportedRun, names: Sequence[str], runs: Sequence[ReportedRun], metric: str) -> str:
    """Return what the curves show in words."""
    points = best.curves[metric]
    lowest = min(points, key=lambda point: point[1])
    said = f"{TITLES[metric]} in {UNITS[metric]} against the step. "
    if len(runs) > 1:
        said += f"{len(runs)} runs in {len(names)} configurations. Thick: the best run, {label(best)}. "
    return said + f"Its first value is {points[0][1]:.4f}, its lowest {lowest[1]:.4f} at step {lowest[0]:,}."


def curve_color(names: Sequence[str]) -> Any:
    """Return the color of a curve: by configuration, but of a few only."""
    if len(names) == 1:
        return alt.Undefined
    legend = alt.Legend(orient="bottom", direction="vertical", columns=1, title=None, symbolType="stroke")
    domain = list(names[:MAX_COLORS])
    if len(names) <= MAX_COLORS:
        return alt.Color("configuration:N", sort=domain, scale=alt.Scale(domain=domain), legend=legend)
    best = alt.condition(alt.datum.configuration == names[0], alt.value(LIGHT_COLORS[0]), alt.value(OTHERS))
    return best


def label(run: ReportedRun) -> str:
    """Return what a run is called in a figure."""
    row = run.row()
    return f"{row['job']}: {row['configuration']}" + (f" seed={row['seed']}" if row["seed"] is not None else "")


def heat_map(options: Mapping[str, Sequence[str]], losses: Sequence[float]) -> Figure:
    """The mean of each pair of values of two options."""
    (first, one), (second, other) = options.items()
    cells = cell_means(one, other, losses)
    for cell in cells:
        cell["label"] = f"{cell['mean']:.4f}" + (f"\n± {cell['error']:.4f}" if cell["error"] is not None else "")
    low, high = min(c["mean"] for c in cells), max(c["mean"] for c in cells)
    base = alt.Chart(alt.InlineData(values=cells)).encode(
        x=alt.X("first:N", title=first, sort=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("second:N", title=second, sort=None),
    )
    fill = alt.Color("mean:Q", title="bits per character", scale=alt.Scale(scheme="viridis", reverse=True), legend=None)
    dark_cell = alt.datum.mean > (low + high) / 2
    text = base.mark_text(fontSize=12, lineBreak="\n").encode(
        text="label:N", color=alt.condition(dark_cell, alt.value("white"), alt.value("black"))
    )
    lowest = min(cells, key=lambda cell: cell["mean"])
    said = (
        f"Mean bits per character for each pair of {first} and {second}, over the seeds. Lowest: {lowest['mean']:.4f} "
        f"with {first}={lowest['first']} and {second}={lowest['second']}."
    )
    rows = len({cell["second"] for cell in cells})
    return finish(
        "heat_map", f"{first} and {second}", said, alt.layer(base.mark_rect().encode(color=fill), text), 48 * rows + 40
    )


def parallel_coordinates(options: Mapping[str, Sequence[str]], losses: Sequence[float]) -> Figure:
    """One line for each run through its values, which are evenly spaced on each axis; the last axis is the loss."""
    last, low, high = "bits per character", min(losses), max(losses)
    places = {name: ordered(values) for name, values in options.items()}
    lines = [
        {"axis": axis, "y": y, "loss": loss, "run": run}
        for run, loss in enumerate(losses)
        for axis, y in [
            *((name, places[name][values[run]]) for name, values in options.items()),
            (last, (loss - low) / ((high - low) or 1)),
        ]
    ]
    ticks = [{"axis": name, "y": y, "label": value} for name, place in places.items() for value, y in place.items()]
    ticks += [{"axis": last, "y": y, "label": f"{loss:.4f}"} for y, loss in ((0, low), (1, high))]
    axes = alt.X("axis:N", title=None, sort=[*options, last], axis=alt.Axis(labelAngle=0, domain=False, grid=True))
    height = alt.Y("y:Q", axis=None)
    is_best = alt.datum.run == losses.index(low)
    drawn = alt.Chart(alt.InlineData(values=lines)).mark_line(strokeOpacity=0.8)
    drawn = drawn.encode(
        x=axes,
        y=height,
        detail="run:N",
        color=alt.Color("loss:Q", scale=alt.Scale(range=[LIGHT_COLORS[0], OTHERS]), legend=None),
        strokeWidth=alt.condition(is_best, alt.value(4), alt.value(1.2)),
    )
    texts = alt.Chart(alt.InlineData(values=ticks)).mark_text(align="left", dx=5, dy=-6)
    chart = alt.layer(drawn, texts.encode(x=axes, y=height, text="label:N"))
    said = f"Each line is a run through its values of {', '.join(options)}, to its {last}; the thick one is the best."
    return finish("parallel_coordinates", "Options and results", said, chart, HEIGHT)


def ordered(values: Sequence[str]) -> dict[str, float]:
    """Return a place in [0, 1] for each value: by size for numbers, else by name."""

    def key(value: str) -> tuple[int, float, str]:
        try:
            return 0, float(value), value
        except ValueError:
            return 1, 0.0, value

    distinct = sorted(set(values), key=key)
    return {value: place / max(1, len(distinct) - 1) for place, value in enumerate(distinct)}


def importance_bars(options: Mapping[str, Sequence[str]], losses: Sequence[float]) -> Figure:
    """How much of the variance each option explains by itself."""
    shares = importances(options, losses)
    bars = alt.Chart(alt.InlineData(values=[{"option": name, "share": share} for name, share in shares.items()]))
    bars = bars.mark_bar().encode(
        x=alt.X("share:Q", title="share of the variance", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        y=alt.Y("option:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
    )
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    said = f"Share of the variance of the bits per character that lies between the values of one option: {listed}."
    return finish("importances", "Importance of each option", said, bars, 36 * len(shares) + 10)
