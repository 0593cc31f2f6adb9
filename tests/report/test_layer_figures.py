"""The figures of the layers of one run."""

import pytest
from tests.report.conftest import write_run

from minigpt.report.layer_figures import colors, layer_figures, layer_order
from minigpt.report.sources import read_runs


@pytest.fixture
def runs(tmp_path):
    """Two runs with metrics of an embedding, of two blocks and of their heads, and with one of no layer."""
    columns = ["grad_norm/head", "grad_norm/blocks.10", "grad_norm/blocks.2", "grad_norm/embedding"]
    columns += ["attention_entropy/blocks.2.head_0", "attention_entropy/blocks.2.head_1", "optim/grad_norm"]
    for name in ("a", "b"):
        run = write_run(tmp_path / name, [], bpc=2.0)
        rows = [
            f"step,{','.join(columns)},val/loss",
            "1,,,,,,,9,3",
            "10,0.01,2,3,4,1.25,0.5,9,",
            "20,1,2,nan,4,1.5,0.25,9,",
        ]
        (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    return [tmp_path / "a", tmp_path / "b"]


def test_a_run_has_a_figure_for_each_metric_of_its_layers(runs):
    norm, entropy = layer_figures(read_runs(runs[:1])[0])
    assert (norm.name, entropy.name) == ("grad_norm", "attention_entropy")
    color = norm.spec["encoding"]["color"]
    assert color["sort"] == color["scale"]["domain"] == ["embedding", "blocks.2", "blocks.10", "head"]
    points = norm.spec["datasets"]["points"]
    assert [(p["step"], p["value"]) for p in points if p["of"] == "blocks.2"] == [(10, 3.0)], "a gap at nan"
    assert {p["of"]: p["layer"] for p in entropy.spec["datasets"]["points"]} == {
        "blocks.2.head_0": "blocks.2",
        "blocks.2.head_1": "blocks.2",
    }
    assert norm.spec["encoding"]["y"]["scale"]["type"] == "log", "from 0.01 to 4"
    assert entropy.spec["encoding"]["y"]["scale"]["type"] == "linear", "from 0.25 to 1.5"
    assert "from 0.25 (blocks.2.head_1) to 1.5 (blocks.2.head_0)" in entropy.description


def test_several_runs_have_none(runs):
    assert all(layer_figures(run) == [] for run in read_runs(runs))


def test_layers_are_ordered_and_colored_from_first_to_last():
    names = ["head", "norm", "blocks.2", "embedding", "blocks.10"]
    assert sorted(names, key=layer_order) == ["embedding", "blocks.2", "blocks.10", "norm", "head"]
    assert colors(3) == ["#0072b2", "#8a8a94", "#d55e00"] and colors(1) == ["#0072b2"] and len(set(colors(14))) == 14
