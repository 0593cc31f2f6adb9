"""Runs that differ by their seed: means, errors, the paired test, and the tables of a sweep."""

import csv
import io
import itertools
import json
import math

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console
from scipy import stats

from hydra_plugins.job_lines import JobLines
from hydra_plugins.process_launcher import ProcessLauncher
from hydra_plugins.sweep_callback import SweepRanking, show_ranking
from minigpt.runs.ranking import rank_jobs, write_ranking
from minigpt.runs.seeds import compare_best_two, paired_t_test, summarize_configurations, two_sided_p
from minigpt.runs.summary import write_summary

LOSSES = {"adamw": [2.31, 2.35, 2.29, 2.40], "muon": [2.21, 2.30, 2.26, 2.28], "sgd": [3.1, 3.3, 3.2, 3.0]}


def make_sweep(folder, losses=LOSSES, **changes):
    """A sweep's directory: every optimizer with seeds from 1 on, all with 5 steps."""
    job = 0
    for optimizer, values in losses.items():
        for seed, value in enumerate(values, start=1):
            (folder / str(job)).mkdir()
            figures = {"val_bpc_best": value, "val_loss_best": value / 2, "train_s": 3.0 + seed, "seed": seed}
            overrides = [f"optimizer={optimizer}", f"seed={seed}", "trainer.max_steps=5"]
            summary = {"status": "completed", "overrides": overrides, **figures, **changes.get(f"job{job}", {})}
            write_summary(folder / str(job), summary)
            job += 1
    return rank_jobs(folder)


def test_means_and_errors_are_numpy_s(tmp_path):
    entries = summarize_configurations(make_sweep(tmp_path))
    assert [e["configuration"] for e in entries] == ["optimizer=muon", "optimizer=adamw", "optimizer=sgd"]
    assert [(e["rank"], e["seeds"], e["runs"]) for e in entries] == [(1, 4, 4), (2, 4, 4), (3, 4, 4)]
    for entry in entries:
        values = np.array(LOSSES[entry["configuration"].removeprefix("optimizer=")])
        assert entry["val_bpc_best"] == pytest.approx(values.mean(), rel=1e-12)
        assert entry["val_bpc_best_stderr"] == pytest.approx(values.std(ddof=1) / np.sqrt(4), rel=1e-12)
        assert entry["val_loss_best"] == pytest.approx(values.mean() / 2, rel=1e-12)


@pytest.mark.parametrize("number", [2, 3, 4, 5, 10, 31])
@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_the_paired_test_is_scipy_s(number, shift):
    rng = np.random.default_rng(number)
    one, other = rng.normal(size=number), rng.normal(size=number) + shift
    t, p = paired_t_test(list(other - one))
    expected = stats.ttest_rel(other, one)
    assert t == pytest.approx(expected.statistic, rel=1e-9)
    assert p == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-14)


def test_p_keeps_its_range():
    assert two_sided_p(0.0, 1) == two_sided_p(0.0, 2) == 1.0
    assert two_sided_p(-3.0, 7) == two_sided_p(3.0, 7)
    assert two_sided_p(1e300, 3) == pytest.approx(0, abs=1e-12) and two_sided_p(math.inf, 4) == 0.0
    assert paired_t_test([0.5]) == paired_t_test([0.5, 0.5]) == (None, None)


def test_the_best_two_are_compared_by_the_seeds_that_both_have(tmp_path):
    failed = {"status": "failed", "val_bpc_best": 0.1}  # job 5 is muon's second seed: its loss is of its first steps
    comparison = compare_best_two(summarize_configurations(make_sweep(tmp_path, job5=failed)))
    kept = [0, 2, 3]
    one, other = np.array(LOSSES["muon"])[kept], np.array(LOSSES["adamw"])[kept]
    expected = stats.ttest_rel(other, one)
    assert comparison["best"] == "optimizer=muon" and comparison["second"] == "optimizer=adamw"
    assert comparison["seeds"] == 3 and comparison["difference"] == pytest.approx((other - one).mean())
    assert comparison["p"] == pytest.approx(expected.pvalue)


def test_nothing_is_compared_without_two_common_seeds(tmp_path):
    assert (
        compare_best_two(summarize_configurations(make_sweep(tmp_path, {"adamw": [1.0, 2.0], "muon": [1.0]}))) is None
    )
    assert compare_best_two([]) is None


def test_files_of_the_configurations(tmp_path):
    write_ranking(tmp_path, make_sweep(tmp_path))
    found = json.loads((tmp_path / "configurations.json").read_text())
    assert found["paired_comparison"]["seeds"] == 4 and found["configurations"][0]["jobs"] == [4, 6, 7, 5]
    with (tmp_path / "configurations.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["configuration"] for row in table] == ["optimizer=muon", "optimizer=adamw", "optimizer=sgd"]
    assert float(table[0]["val_bpc_best_stderr"]) == found["configurations"][0]["val_bpc_best_stderr"]
    with (tmp_path / "ranking.csv").open() as file:
        assert {(row["configuration"], row["seed"]) for row in csv.DictReader(file)} == {
            (f"optimizer={name}", str(seed)) for name in LOSSES for seed in (1, 2, 3, 4)
        }


def test_no_configurations_are_written_for_one_seed(tmp_path):
    write_ranking(tmp_path, make_sweep(tmp_path, {"adamw": [1.0], "muon": [2.0]}))
    assert not list(tmp_path.glob("configurations.*"))


def test_the_terminal_has_a_line_for_each_configuration_and_its_runs_below(tmp_path, capsys):
    show_ranking(make_sweep(tmp_path), tmp_path, "nowhere")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()][3:]
    assert "optimizer=muon" in lines[0] and "2.2625 ± 0.0193 (4)" in lines[0]
    assert [line.split()[1] for line in lines[1:5]] == ["seed=1", "seed=3", "seed=4", "seed=2"]
    assert "optimizer=adamw" in lines[5]


@pytest.mark.parametrize("several_seeds", [True, False])
def test_a_terminal_of_80_columns_cuts_no_name_and_no_figure(tmp_path, monkeypatch, several_seeds):
    make_sweep(
        tmp_path, {"adamw": [1.0, 2.0], "muon": [1.5, 1.0]} if several_seeds else {"adamw": [1.0], "muon": [2.0]}
    )
    rows = rank_jobs(tmp_path)
    rows[0]["train_s"] = 345.67
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr("hydra_plugins.sweep_callback.Console", lambda **options: console)
    show_ranking(rows, tmp_path, "nowhere")
    shown = console.file.getvalue()
    table = list(itertools.takewhile(lambda line: not line.startswith(("optimizer=", "written")), shown.splitlines()))
    assert len(table) > 4 and max(map(len, table)) <= 80 and "…" not in shown
    assert any("345.7" in line for line in table) and any("optimizer=adamw " in line for line in table)
    assert "tokens" not in shown and "parameters" not in shown, "there is no room, or all have the same"


def test_the_terminal_tells_the_paired_comparison(tmp_path, capsys):
    show_ranking(make_sweep(tmp_path), tmp_path, "nowhere")
    said = "optimizer=muon has 0.0750 ± 0.0210 fewer bits per character than optimizer=adamw, paired over 4 seeds"
    assert said in capsys.readouterr().out


def test_a_job_without_a_summary_leaves_the_names_of_the_others(tmp_path):
    make_sweep(tmp_path, {"adamw": [1.0, 2.0]})
    (tmp_path / "2").mkdir()
    assert [row["overrides"] for row in rank_jobs(tmp_path)] == ["seed=1", "seed=2", ""]


def test_a_folder_in_a_summary_s_place_costs_its_own_row_alone(tmp_path, monkeypatch):
    (tmp_path / "0" / "summary.json").mkdir(parents=True)
    launcher = ProcessLauncher()
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "overrides": {"task": []}}})
    monkeypatch.setattr(ProcessLauncher, "flags", lambda self: [])
    monkeypatch.setattr(ProcessLauncher, "execute", lambda *arguments: 0)
    for index in (0, 1):
        launcher.run(JobLines(2), index, [f"seed={index}"])
    assert [(row["job"], row["status"]) for row in rank_jobs(tmp_path)] == [(0, "failed"), (1, "failed")]
    assert "is not a regular file" in rank_jobs(tmp_path)[0]["error"]


@pytest.mark.parametrize("wanted", [True, False])
def test_a_sweep_ends_with_a_report_unless_it_is_turned_off(tmp_path, monkeypatch, wanted):
    make_sweep(tmp_path)
    reported = []
    monkeypatch.setattr("hydra_plugins.sweep_callback.report_sweep", lambda folder, _: reported.append(folder))
    config = {
        "trainer": {},
        "hydra": {"sweep": {"dir": str(tmp_path)}},
        "paths": {"data_dir": "data", "log_dir": str(tmp_path)},
    }
    SweepRanking(report=wanted).on_multirun_end(OmegaConf.create(config))
    assert reported == ([tmp_path] if wanted else []) and (tmp_path / "ranking.csv").is_file()
