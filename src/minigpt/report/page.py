"""Write a report: the page, with the drawing library inside, and the figures beside it."""

import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from platformdirs import user_cache_path

from minigpt.atomic_file import atomic_write
from minigpt.report.analysis import (
    config_table,
    configurations_table,
    cost_table,
    notes_on,
    runs_table,
)
from minigpt.report.attention_maps import draw_all, draw_labels, map_side
from minigpt.report.figures import DARK, LIGHT, STATIC, STATIC_WIDTH, Figure, make_figures
from minigpt.report.layer_figures import layer_figures
from minigpt.report.model_section import ModelSection, show_model
from minigpt.report.sources import ReportedRun, find_runs, read_runs
from minigpt.runs.directory import replace_text
from minigpt.runs.run_files import Sample
from minigpt.runs.seeds import compare_best_two, describe_comparison, summarize_configurations

PAGE = "report.html"
FIGURES = "report"  # the folder of the figures, beside the page
MAX_SAMPLES = 8


def write_report(reference: str, runs_dir: Path, data_dir: str = "data", trusted: frozenset[str] = frozenset()) -> Path:
    """Write the report of runs into their directory; return the page.

    Args:
        reference: a run's directory, a sweep's, `latest`, or a glob of such directories.
        runs_dir: where `latest` is looked for.
        data_dir: directory of the texts.
        trusted: classes outside of miniGPT that the user has named, which the best model may have.

    Raises:
        ValueError: there is no run, or nothing of them can be read.
        OSError: the report cannot be written.
    """
    directories, place = find_runs(reference, runs_dir)
    runs = read_runs(directories)
    runs.sort(key=lambda run: (run.summary.get("val_bpc_best") is None, run.summary.get("val_bpc_best") or 0.0))
    figures = make_figures(runs) + (layer_figures(runs[0]) if len(runs) == 1 else [])
    model = show_model(runs[0], data_dir, trusted)
    for problem in (problem for run in runs for problem in run.problems):
        print(f"left out of the report: {problem}", file=sys.stderr)
    write_figures(figures, model, place / FIGURES)
    replace_text(place / PAGE, render(runs, figures, model, place.absolute().name))
    return place / PAGE


def render(runs: Sequence[ReportedRun], figures: Sequence[Figure], model: ModelSection | None, name: str) -> str:
    """Return the page."""
    configurations = summarize_configurations(run.row() for run in runs)
    several = len(runs) > 1
    library = drawing_library()
    template = environment().get_template("page.html.jinja")
    specs = {figure.name: figure.spec for figure in [*figures, *(model.figures if model else [])]}
    script = environment().get_template("page.js").render()
    return template.render(
        name=name,
        best=runs[0],
        comparison=describe_comparison(compare_best_two(configurations)),
        several=several,
        notes=notes_on(runs),
        figures=figures,
        summaries=[configurations_table(configurations), runs_table(runs)] if several else [runs_table(runs)],
        model=model,
        map_side=map_side(model.prompt) if model else 0,
        map_labels=draw_labels(model.prompt) if model else "",
        samples=spread(runs[0].samples, MAX_SAMPLES),
        cost=cost_table(runs),
        config=config_table(runs),
        data=as_script_data({"specs": specs, "light": LIGHT, "dark": DARK}),
        library=library,
        script=script,
        hashes=" ".join(f"'sha256-{digest(text)}'" for text in (library, script)),
    )


def environment() -> Environment:
    """The templates of this package; whatever a run's files hold is escaped."""
    return Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)


def digest(text: str) -> str:
    """Return the hash of a script as a content security policy has it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def as_script_data(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def spread(samples: Sequence[Sample], number: int) -> list[Sample]:
    """Return at most `number` samples, evenly spaced, the first and the last among them."""
    if len(samples) <= number:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (number - 1))] for i in range(number)]


def drawing_library() -> str:
    """Return the JavaScript of Vega and Vega-Lite. Bundling it takes seconds, so it is kept in the user's cache."""
    path = user_cache_path("minigpt", appauthor=False) / f"vega-{version('vl-convert-python')}.js"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(bundle, encoding="utf-8")
    except OSError:
        pass  # without a cache it is bundled each time
    return bundle


def write_figures(figures: Sequence[Figure], model: ModelSection | None, folder: Path) -> None:
    """Write each figure as PNG and SVG, on white.

    Raises:
        ValueError: a link or a file is in the folder's place: a run directory may come from anybody.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is not a directory: the figures of a report are written there")
    folder.mkdir(exist_ok=True)
    specs = {figure.name: figure.spec for figure in [*figures, *(model.figures if model else [])]}
    drawn = {
        name: vl_convert.vegalite_to_svg(spec | {"width": STATIC_WIDTH, "config": STATIC})
        for name, spec in specs.items()
    }
    if model and model.layers:
        drawn["attention"] = draw_all(model.layers, model.prompt)
    for name, svg in drawn.items():
        replace_text(folder / f"{name}.svg", svg)
        with atomic_write(folder / f"{name}.png") as temporary:
            temporary.write_bytes(vl_convert.svg_to_png(svg, scale=2))
