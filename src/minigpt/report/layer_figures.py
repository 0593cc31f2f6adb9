"""The figures of what is measured in each layer, by columns of metrics.csv such as `grad_norm/blocks.0`."""

import re

import altair as alt

from minigpt.report.figures import HEIGHT, Figure, finish, thin
from minigpt.report.sources import LAYER_METRICS, ReportedRun

MAX_POINTS = 1000  # of one figure
FIRST, MIDDLE, LAST = (0, 114, 178), (138, 138, 148), (213, 94, 0)  # colors of layers, visible on light and dark pages
HEAD = re.compile(r"\.head_\d+$", re.ASCII)
MAX_RATIO = 30  # of the largest value and the smallest on a linear axis


def layer_figures(run: ReportedRun) -> list[Figure]:
    """Return a figure for each metric of the layers that the run has."""
    return [figure for metric in LAYER_METRICS if (figure := layer_figure(run, metric)) is not None]


def layer_figure(run: ReportedRun, metric: str) -> Figure | None:
    """A metric of the layers against the step: one line for each layer, or for each attention head of each layer."""
    series = {name.partition("/")[2]: c for name, c in run.curves.items() if name.startswith(f"{metric}/")}
    if not series:
        return None
    values = [
        {"step": step, "value": float(f"{value:.4g}"), "of": name, "layer": HEAD.sub("", name)}
        for name, points in series.items()
        for step, value in thin(points, MAX_POINTS // len(series))
    ]
    layers = sorted({HEAD.sub("", name) for name in series}, key=layer_order)
    numbers = [value["value"] for value in values]
    is_log = min(numbers) > 0 and max(numbers) > MAX_RATIO * min(numbers)
    title, unit = LAYER_METRICS[metric]
    legend = alt.Legend(orient="bottom", title=None, symbolType="stroke")
    line = alt.Chart(alt.NamedData("points")).mark_line(point={"size": 14})
    line = line.encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickCount=6, format=",d")),
        y=alt.Y("value:Q", title=unit, scale=alt.Scale(type="log" if is_log else "linear", zero=False)),
        detail="of:N",
        color=alt.Color(
            "layer:N", sort=layers, scale=alt.Scale(domain=layers, range=colors(len(layers))), legend=legend
        ),
        tooltip=["of:N", "step:Q", "value:Q"],
    )
    last = {name: points[-1][1] for name, points in series.items()}
    low, high = min(last, key=lambda name: last[name]), max(last, key=lambda name: last[name])
    said = f"{title} of each layer ({unit}). Last: from {last[low]:.3g} ({low}) to {last[high]:.3g} ({high})."
    figure = finish(metric, f"{title} by layer", said, line, HEIGHT)
    figure.spec["datasets"] = {"points": values}
    return figure


def layer_order(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Return the key that sorts layers from the embedding to the head, blocks by number."""
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
    return name == "head", not name.startswith("embedding"), parts


def colors(number: int) -> list[str]:
    """Return a color for each layer, from blue to orange."""
    found = []
    for place in range(number):
        share = 2 * place / max(1, number - 1)
        start, end, part = (FIRST, MIDDLE, share) if share <= 1 else (MIDDLE, LAST, share - 1)
        found.append("#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(start, end, strict=True)))
    return found
