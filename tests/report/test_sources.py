"""Which runs a report is of, and what it says of those that cannot be read."""

import pytest
from tests.report.conftest import write_run

from minigpt.report.sources import find_runs, read_runs


def test_runs_are_found_by_path_sweep_glob_and_latest(tmp_path, sweep):
    runs = tmp_path / "runs"
    first = write_run(runs / "2026-01-01_00-00-00_first", [], bpc=2.0)
    last = write_run(runs / "2026-01-02_00-00-00_last", [], bpc=2.0)
    assert find_runs("latest", runs) == ([last], last)
    assert find_runs(str(first), runs) == ([first], first)
    assert find_runs(str(runs), runs) == ([first, last], runs)
    assert find_runs(f"{runs}/*first", runs) == ([first], first)
    assert find_runs(f"{runs}/2026*", runs) == ([first, last], runs)
    found, place = find_runs(str(sweep), runs)
    assert [run.name for run in found] == list("01234567") and place == sweep
    assert len(find_runs(f"{tmp_path}/*", runs)[0]) == 10


@pytest.mark.parametrize("reference", ["latest", "nowhere", "runs/*", "."])
def test_no_run_is_an_error_with_advice(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no run"):
        find_runs(reference, tmp_path / "runs")


def test_a_run_is_read_as_it_was_written(sweep):
    best = read_runs(find_runs(str(sweep), sweep)[0])[7]
    assert best.configuration == "optimizer=muon model.dim=64" and best.row()["seed"] == 2
    assert best.config["model.dim"] == 64 and best.tokenizer == "CharTokenizer"
    assert best.curves["val/bpc"][-1] == (30, pytest.approx(1.32)) and len(best.curves["train/loss"]) == 3
    assert [(s.step, s.text) for s in best.samples] == [(n, f"step {n} <i>") for n in (10, 20, 30)]
    assert best.problems == []


def test_the_directory_of_a_running_job_is_no_part_of_its_name(sweep):
    write_run(sweep / "8", ["trainer.max_steps=30", "optimizer=sgd", f"paths.run_dir={sweep}/8"], bpc=2.0)
    assert read_runs(find_runs(str(sweep), sweep)[0])[8].configuration == "optimizer=sgd"


@pytest.mark.parametrize("file", ["metrics.csv", "config.yaml", "samples.md", "summary.json"])
@pytest.mark.parametrize("damage", ["bytes", "folder"])
def test_a_damaged_file_costs_its_own_part_alone(sweep, file, damage):
    path = sweep / "3" / file
    path.unlink()
    path.mkdir() if damage == "folder" else path.write_bytes(b"\xff{{")
    runs = read_runs(find_runs(str(sweep), sweep)[0])
    (problem,) = runs[3].problems
    assert file in problem and len(runs) == 8
    assert bool(runs[3].curves) == (file != "metrics.csv") and bool(runs[3].samples) == (file != "samples.md")


@pytest.mark.parametrize("value", ["x", "1e999", "nan"])
def test_a_loss_that_is_no_number(tmp_path, value):
    run = write_run(tmp_path / "run", [], bpc=2.0)
    (run / "metrics.csv").write_text(f"step,val/loss\n1,3.0\n2,{value}\n3,2.5\n")
    (read,) = read_runs([run])
    assert read.curves == ({} if value == "x" else {"val/loss": [(1, 3.0), (3, 2.5)]})
    assert len(read.problems) == (value == "x")


def test_one_run_without_anything_is_an_error(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")
    with pytest.raises(ValueError, match="left no summary"):
        read_runs([tmp_path / "run"])
