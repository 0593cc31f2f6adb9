"""`make workspace PROJECT=ENTITY/PROJECT`: save a view of a project at Weights & Biases, the losses first."""

import re
import sys
from typing import Any
from urllib.parse import urlparse

from minigpt.runs.wandb_key import has_api_key

NAME = "miniGPT"
# The panels of each section: metrics by name, or all that begin alike, as one panel with a line for each layer.
SECTIONS = {
    "loss": ["train/loss", "val/loss", "val/bpc", "val/perplexity", "val/accuracy"],
    "optimization": ["optim/lr", "optim/grad_norm", "optim/skipped_steps", "progress/tokens", "progress/epoch"],
    "throughput": ["throughput/tokens_per_s", "throughput/step_ms", "throughput/mfu", "memory/max_gib"],
    "health": ["grad_norm/", "update_ratio/", "activation_rms/", "attention_entropy/", "max_logit/"],
}
# Beside the loss; no `optimizer.lr`: the library takes a dot for a level of the configuration, which has none.
OPTIONS = ["model", "optimizer", "scheduler", "seed"]
BEST = "val_bpc_best"  # of the summary; comparable across tokenizers


def main(project: str = "") -> None:
    """Save the workspace, and print its address; one line for what is wrong."""
    try:
        print(save(project))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def save(project: str) -> str:
    """Save the workspace in a project; return its address.

    Args:
        project: `entity/project`.

    Raises:
        ValueError: the project's name or the key is missing, or the server does not take it.
    """
    match = re.fullmatch(r"(\w[\w.-]*)/(\w[\w.-]*)", project, re.ASCII)
    if match is None:
        raise ValueError(f"PROJECT={project} must be ENTITY/PROJECT: make workspace PROJECT=me/minigpt")
    import wandb

    host = urlparse(wandb.setup().settings.base_url).hostname or ""
    if not has_api_key(host):  # wandb would ask for one, and wait
        raise ValueError(f"a workspace needs an account at {host}: wandb login")
    workspace = build(*match.groups())
    try:
        workspace.save()
    except Exception as error:  # whatever a server says, and the library makes of it
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the workspace of {project} cannot be saved at {host}: {line}") from error
    return workspace.url


def build(entity: str, project: str) -> Any:
    """The workspace, with a section for each question that one asks of a training.

    Raises:
        ValueError: the library is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        from wandb_workspaces.reports.v2.interface import ParallelCoordinatesPlotColumn as Column
        from wandb_workspaces.workspaces import Section, Workspace
    except ImportError as error:
        install = 'pip install -c constraints.txt -e ".[workspace]"'
        raise ValueError(f"wandb-workspaces is not installed: {install}") from error
    sections = [
        Section(name=name, is_open=name != "health", panels=[line_plot(metric) for metric in metrics])
        for name, metrics in SECTIONS.items()
    ]
    columns = [*(Column(panels.Config(option)) for option in OPTIONS), Column(panels.SummaryMetric(BEST))]
    samples = [panels.WeavePanelSummaryTable(table_name="samples"), panels.MediaBrowser(media_keys=["attention"])]
    sweep = [
        panels.ParallelCoordinatesPlot(columns=columns),
        panels.ParameterImportancePlot(with_respect_to=BEST),
        panels.RunComparer(diff_only=True),
    ]
    sections += [Section(name="samples", is_open=True, panels=samples), Section(name="sweep", panels=sweep)]
    return Workspace(entity=entity, project=project, name=NAME, sections=sections)


def line_plot(metric: str) -> Any:
    """One metric over the steps; all that begin alike for a name that ends in a slash."""
    from wandb_workspaces.reports.v2 import LinePlot

    if metric.endswith("/"):
        return LinePlot(title=metric.strip("/"), metric_regex=f"^{metric}.*")
    return LinePlot(title=metric, y=[metric])


if __name__ == "__main__":
    main(*sys.argv[1:])
