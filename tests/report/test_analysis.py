"""The tables of a report, against numpy and by hand."""

import numpy as np
import pytest
from tests.report.conftest import write_run

from minigpt.report.analysis import (
    cell_means,
    compares_by_characters,
    config_table,
    configurations_table,
    cost_table,
    importances,
    notes_on,
    runs_table,
    show_option,
    varied_options,
)
from minigpt.report.sources import find_runs, read_runs
from minigpt.runs.seeds import summarize_configurations


def read(folder):
    return read_runs(find_runs(str(folder), folder)[0])


def test_means_and_errors_on_the_page_are_numpy_s(sweep):
    runs = read(sweep)
    table = configurations_table(summarize_configurations(run.row() for run in runs))
    values = np.array([run.summary["val_bpc_best"] for run in runs if run.options[0] == "optimizer=muon"][2:])
    error = values.std(ddof=1) / np.sqrt(2)
    assert table.rows[0][:2] == ["optimizer=muon model.dim=64", f"{values.mean():.4f} ± {error:.4f}"]
    assert [row[0] for row in table.rows[1:]] == [
        "optimizer=muon model.dim=32",
        "optimizer=adamw model.dim=64",
        "optimizer=adamw model.dim=32",
    ]
    assert {row[-1] for row in table.rows} == {"2"}


def test_a_table_has_the_columns_that_are_of_use(sweep):
    table = configurations_table(summarize_configurations(run.row() for run in read(sweep)))
    assert table.rows[0][3:5] == ["2.0 ± 0.0", "2,500 ± 0"]
    several, one = runs_table(read(sweep)), runs_table(read(sweep)[:1])
    assert several.columns == [one.columns[0], "configuration", *one.columns[1:]]
    for table in (several, one):
        row = dict(zip(table.columns, table.rows[0], strict=True))
        assert (row["seed"], row["at step"], row["status"]) == ("1", "30", "completed")


def test_options_that_differ(sweep):
    runs = read(sweep)
    options = varied_options(runs)
    assert list(options) == ["optimizer", "model.dim"], "neither the seed nor what all share"
    assert options["model.dim"] == ["32", "32", "64", "64"] * 2
    assert config_table(runs).rows == [["model.dim", "32 (4), 64 (4)"]]


def test_importances_are_shares_of_the_variance():
    options = {"a": ["x", "x", "y", "y"], "b": ["u", "v", "u", "v"], "c": ["1", "2", "2", "1"]}
    shares = importances(options, [1.0, 2.0, 5.0, 6.0])  # 4 for a, 1 for b, and nothing else
    assert shares == pytest.approx({"a": 16 / 17, "b": 1 / 17, "c": 0.0}) and next(iter(shares)) == "a"
    assert importances(options, [1.0] * 4) == {"a": 0.0, "b": 0.0, "c": 0.0}


def test_cells_are_means_of_the_runs_with_both_values():
    cells = cell_means(["x", "x", "y"], ["u", "u", "u"], [1.0, 3.0, 5.0])
    assert [(c["first"], c["mean"], c["error"]) for c in cells] == [("x", 2.0, 1.0), ("y", 5.0, None)]


def test_costs_are_summed(sweep):
    table = cost_table(read(sweep))
    assert table.rows[0][1:] == ["2.0", "3.0", "5,000", "3.00e+06", "2,500"]
    assert table.rows[-1][1:] == ["16.0", "24.0", "40,000", "2.40e+07", "–"]


@pytest.mark.parametrize(
    ("value", "shown"), [(1, "1"), (True, "true"), (0.0, "0.0"), (False, "false"), (None, "null"), ([0.9], "[0.9]")]
)
def test_options_are_shown_as_typed(value, shown):
    assert show_option(value) == shown


def test_other_texts_and_tokenizers_are_told(tmp_path, sweep):
    assert notes_on(read(sweep)) == []
    bpe = {"data": {"tokenizer": {"_target_": "minigpt.data.tokenizer.bpe.BPETokenizer", "vocab_size": 300}}}
    write_run(sweep / "8", ["data/tokenizer=bpe"], bpc=1.0, config=bpe, text="other.txt")
    texts, tokenizers = notes_on(read(sweep))
    assert "different texts (other.txt, play.txt)" in texts and "bits per character" in texts
    assert "BPETokenizer (300), CharTokenizer" in tokenizers and "bits per character" in tokenizers


def test_a_run_that_has_only_begun_has_no_other_text(sweep):
    write_run(sweep / "8", ["model.dim=96"], bpc=2.0, val_bpc_best=None, status="running", text=None)
    runs = read(sweep)
    assert notes_on(runs) == [] and not compares_by_characters(runs)
