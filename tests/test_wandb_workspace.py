"""`make workspace`: what is saved at a stand-in for W&B's server, and one line for what is wrong."""

import json
import sys

import pytest

from minigpt import wandb_workspace


def test_the_workspace_begins_with_the_losses_and_has_a_panel_for_each_kind_of_layer_metric(server, capsys):
    wandb_workspace.main("me/minigpt")
    assert capsys.readouterr().out.startswith("http") and len(server.views) == 1
    (view,) = server.views
    assert (view["entityName"], view["projectName"]) == ("me", "minigpt")
    sections = json.loads(view["spec"])["section"]["panelBankConfig"]["sections"]
    assert [s["name"] for s in sections] == "loss optimization throughput health samples sweep".split()
    panels = {s["name"]: [panel["config"] for panel in s["panels"]] for s in sections}
    assert [panel["metrics"] for panel in panels["loss"]][:2] == [["train/loss"], ["val/loss"]]
    assert [panel["metricRegex"] for panel in panels["health"]] == [
        f"^{kind}/.*" for kind in "grad_norm update_ratio activation_rms attention_entropy max_logit".split()
    ]
    assert panels["samples"][1]["mediaKeys"] == ["attention"] and '"samples"' in json.dumps(panels["samples"][0])
    assert panels["sweep"][1]["targetKey"] == "val_bpc_best"


@pytest.mark.parametrize(
    ("project", "cause", "line"),
    [
        ("", None, "error: PROJECT= must be ENTITY/PROJECT: make workspace PROJECT=me/minigpt"),
        ("me/../x", None, "error: PROJECT=me/../x must be ENTITY/PROJECT"),
        ("me/p", "no key", "error: a workspace needs an account at 127.0.0.1: wandb login"),
        ("me/p", "refused", "error: the workspace of me/p cannot be saved at 127.0.0.1: "),
        ("me/p", "not installed", "error: wandb-workspaces is not installed: pip install"),
    ],
)
def test_a_mistake_is_one_line(server, monkeypatch, tmp_path, capsys, project, cause, line):
    if cause == "no key":
        monkeypatch.delenv("WANDB_API_KEY")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if cause == "refused":
        server.status = 403
    if cause == "not installed":
        monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(SystemExit) as exit:
        wandb_workspace.main(project)
    shown = capsys.readouterr()
    assert exit.value.code == 2 and shown.out == "" and not server.views
    assert shown.err.startswith(line) and shown.err.count("\n") == 1
