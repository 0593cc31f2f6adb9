"""Run directories and checkpoint files."""

import csv
import json
import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from minigpt.runs.checkpoint_io import (
    AtomicCheckpointIO,
    append_checksum,
    check_space,
    is_valid,
    link,
    load_checkpoint,
    load_latest,
    quarantine,
    remove_temp_files,
)
from minigpt.runs.directory import (
    check_run_files,
    find_checkpoint,
    find_run,
    make_run_directory,
    step_checkpoints,
)
from minigpt.runs.ranking import rank_jobs, write_ranking
from minigpt.runs.resume import NEEDED, differences, plan_resume, select_run
from minigpt.runs.run import open_run
from minigpt.runs.summary import git_commit, is_complete, read_summary, write_summary


def test_directories_never_collide(tmp_path):
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda _: make_run_directory(tmp_path, "same"), range(50)))
    assert len(set(made)) == 50 and all((d / "checkpoints").is_dir() for d in made)


def test_latest_is_the_newest_by_name(tmp_path):
    for name in ("2026-01-02_00-00-00_b-1", "2026-01-03_00-00-00_a-1", "2026-01-01_00-00-00_c-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("")
    (tmp_path / "2027-01-01_00-00-00_no-config").mkdir()
    assert find_run("latest", tmp_path).name == "2026-01-03_00-00-00_a-1"


def test_where_there_is_no_run_it_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"no run in .* yet"):
        find_run("latest", tmp_path)
    with pytest.raises(ValueError, match=r"no run at .*nowhere: name a run directory"):
        find_run(str(tmp_path / "nowhere"), tmp_path)
    for reference, says in (("https://a/b.ckpt", "is an address"), ("a.ckpt", "no checkpoint at a.ckpt")):
        with pytest.raises(ValueError, match=says):
            find_checkpoint(reference, tmp_path)


@pytest.mark.parametrize("failure", [subprocess.TimeoutExpired, subprocess.CalledProcessError, FileNotFoundError])
def test_a_git_that_fails_or_hangs_ends_no_run(monkeypatch, failure):
    def run(command, *, timeout, check, **options):
        raise failure(timeout, command) if check else AssertionError("its exit code is not looked at")

    monkeypatch.setattr(subprocess, "run", run)
    assert git_commit() is None


def test_runs_of_debug_are_not_latest_and_are_named_where_there_is_no_other(tmp_path):
    run = tmp_path / "debug" / "2026-01-01_00-00-00_debug-1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    with pytest.raises(ValueError, match=rf"no run in .*runs yet: .* debug=... are not `latest`, name one: {run}$"):
        find_run("latest", tmp_path / "runs")
    assert find_run(str(run), tmp_path / "runs") == run == find_run("latest", tmp_path / "debug")


def test_the_best_checkpoint_is_preferred(tmp_path):
    run = make_run_directory(tmp_path, "run")
    (run / "config.yaml").write_text("")
    with pytest.raises(ValueError, match="no checkpoint yet"):
        find_checkpoint(str(run), tmp_path)
    for name in ("last.ckpt", "best.ckpt"):
        (run / "checkpoints" / name).write_text("")
        assert find_checkpoint("latest", tmp_path).name == name
    assert find_checkpoint(str(run / "checkpoints/last.ckpt"), tmp_path).name == "last.ckpt"


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"x": torch.ones(3)}, tmp_path / "a.ckpt")

    def full(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"x": torch.zeros(3)}, tmp_path / "a.ckpt")
    assert torch.equal(io.load_checkpoint(tmp_path / "a.ckpt")["x"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.fixture
def saved(tmp_path):
    """Two checkpoints of a run."""
    for step in (10, 20):
        state = {"step": step, "weights": torch.randn(50, 50)}
        AtomicCheckpointIO().save_checkpoint(state, tmp_path / f"step_{step}.ckpt")
    return tmp_path


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_every_damage_is_found_and_the_one_before_is_taken(saved, damage):
    newest, whole = saved / "step_20.ckpt", (saved / "step_20.ckpt").read_bytes()
    positions = torch.randint(len(whole), (100 if damage == "flip" else 20,)).tolist()
    for position in [*positions, 0, len(whole) - 1]:
        broken = bytearray(whole if damage == "flip" else whole[:position])
        if damage == "flip":
            broken[position] ^= 1 << position % 8
        newest.write_bytes(broken)
        assert not is_valid(newest), position
        with pytest.raises(ValueError, match="damaged"):
            load_checkpoint(newest)
        path, content, damaged = load_latest(saved)
        assert (path, content["step"], damaged) == (saved / "step_10.ckpt", 10, [newest])
    quarantine(damaged, path)
    assert {p.name for p in saved.iterdir()} == {"step_10.ckpt", "step_20.damaged"}
    newest.write_bytes(whole)
    assert load_latest(saved)[0] == newest and load_checkpoint(newest)["step"] == 20


def test_saving_in_the_background_keeps_the_state_of_its_moment(tmp_path):
    io, weights = AtomicCheckpointIO(async_save=True), torch.ones(1000)
    io.save_checkpoint({"weights": weights, "nested": [{"x": weights}]}, tmp_path / "step_1.ckpt")
    weights.zero_()
    published = []
    io.then(lambda: published.append(is_valid(tmp_path / "step_1.ckpt")))
    io.finish()
    loaded = load_checkpoint(tmp_path / "step_1.ckpt")
    assert loaded["weights"].sum() == loaded["nested"][0]["x"].sum() == 1000
    assert published == [True], "only once the file is there"


def test_a_failed_save_in_the_background_is_told_and_nothing_is_published(tmp_path):
    io, published = AtomicCheckpointIO(async_save=True), []
    (tmp_path / "file").write_text("")
    io.save_checkpoint({"x": 1}, tmp_path / "file" / "step_1.ckpt")
    io.then(lambda: published.append(1))
    with pytest.raises(OSError, match="file"):
        io.finish()
    assert not published
    io.save_checkpoint({"x": 1}, tmp_path / "step_2.ckpt")
    io.finish()
    assert is_valid(tmp_path / "step_2.ckpt")


def test_a_disk_without_room_is_refused(tmp_path):
    check_space(tmp_path / "new" / "folder", 10**6, 4)
    assert not list(tmp_path.iterdir()), "asking leaves nothing"
    with pytest.raises(ValueError, match=r"MB free, 4 checkpoints take"):
        check_space(tmp_path / "new", 10**17, 4)


def test_links_in_a_run_directory_are_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    check_run_files(tmp_path)
    (tmp_path / "metrics.csv").symlink_to("/dev/null")
    with pytest.raises(ValueError, match=r"metrics\.csv is a symbolic link"):
        check_run_files(tmp_path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "step_1.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data", bytes(10**7))
    with path.open("r+b") as file:
        append_checksum(file)
    assert is_valid(path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_sealed_checkpoint_is_an_ordinary_torch_file(saved):
    assert torch.load(saved / "step_10.ckpt", weights_only=True)["step"] == 10


def test_the_highest_step_counts_and_not_the_clock(saved):
    os.utime(saved / "step_10.ckpt", (2e9, 2e9))
    assert load_latest(saved)[0].name == "step_20.ckpt"


def test_what_interrupted_saves_left_is_swept(saved):
    (saved / ".summary.json-x1y2").write_bytes(b"half")
    (saved / "checkpoints").mkdir()
    (saved / "checkpoints" / ".step_30.ckpt-x1y2").write_bytes(b"half")
    remove_temp_files(saved)
    assert {p.name for p in saved.rglob("*")} == {"step_10.ckpt", "step_20.ckpt", "checkpoints"}


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (self.canary, "w"))


def test_a_pickled_class_is_never_loaded(tmp_path):
    torch.save({"state_dict": Trap(str(tmp_path / "canary"))}, tmp_path / "trap.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of miniGPT"):
        load_checkpoint(tmp_path / "trap.ckpt")
    with (tmp_path / "trap.ckpt").open("r+b") as file:
        append_checksum(file)  # whoever writes a trap can seal it too
    assert is_valid(tmp_path / "trap.ckpt")
    with pytest.raises(ValueError, match="UnpicklingError"):
        load_checkpoint(tmp_path / "trap.ckpt")
    assert not (tmp_path / "canary").exists()


def test_steps_are_ordered_by_number(tmp_path):
    for name in ("step_9.ckpt", "step_10.ckpt", "step_100.ckpt", "step_x.ckpt", "last.ckpt"):
        (tmp_path / name).write_text(name)
    assert [p.name for p in step_checkpoints(tmp_path)] == ["step_9.ckpt", "step_10.ckpt", "step_100.ckpt"]
    for _ in range(2):
        link(tmp_path / "step_10.ckpt", tmp_path / "last.ckpt")
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "last.ckpt").read_text() == "step_10.ckpt"


FINGERPRINT = {"seed": 1, "optimizer": {"lr": 0.02, "betas": [0.9, 0.95]}, "text": "abc"}


@pytest.fixture
def resumable(tmp_path):
    """The directory of a run that was stopped after step 10, with records and samples of later steps."""
    content = {name: kind() for name, kind in NEEDED.items()} | {"minigpt": {"fingerprint": FINGERPRINT}}
    for step in (5, 10):
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / f"checkpoints/step_{step}.ckpt")
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "metrics.csv").write_text("step,train/loss\n5,3.0\n10,2.0\n11,1.0\n1")
    (tmp_path / "samples.md").write_text("## Step 5, validation loss 3\n\nA\n\n## Step 11, validation loss 1\n\nB\n\n")
    return tmp_path


def test_a_plan_changes_nothing_before_it_is_applied(resumable):
    newest, half = resumable / "checkpoints/step_10.ckpt", resumable / "checkpoints/.step_15.ckpt-half"
    newest.write_bytes(newest.read_bytes()[:-1])
    half.write_text("half")
    before = {p: p.read_bytes() for p in resumable.rglob("*") if p.is_file()}
    plan = plan_resume(resumable, max_steps=20)
    assert (plan.step, plan.damaged) == (5, [newest])
    assert before == {p: p.read_bytes() for p in resumable.rglob("*") if p.is_file()}
    plan.apply()
    assert not newest.exists() and newest.with_suffix(".damaged").exists() and not half.exists()
    assert (resumable / "metrics.csv").read_text().split() == ["step,train/loss", "5,3.0"]
    assert (resumable / "samples.md").read_text() == "## Step 5, validation loss 3\n\nA\n\n"


def test_a_checkpoint_is_hashed_and_loaded_once(resumable, monkeypatch):
    from minigpt.runs import checkpoint_io

    calls = []
    for name in ("is_valid",):
        original = getattr(checkpoint_io, name)
        monkeypatch.setattr(checkpoint_io, name, lambda path, original=original: calls.append(path) or original(path))
    original_load = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: calls.append("load") or original_load(path, **options))
    plan = plan_resume(resumable, max_steps=20)
    io = AtomicCheckpointIO(loaded={plan.checkpoint: plan.content})
    assert io.load_checkpoint(str(plan.checkpoint)) is plan.content
    assert calls == [plan.checkpoint, "load"]
    io.load_checkpoint(plan.checkpoint)
    assert len(calls) == 4, "only the first time"


def test_a_run_that_would_be_another_is_refused(resumable):
    plan = plan_resume(resumable, max_steps=20)
    plan.refuse_changes({**FINGERPRINT})
    new = {"seed": 2, "optimizer": {"lr": 0.02, "betas": [0.9, 0.99], "momentum": 0.9}, "text": "abc"}
    with pytest.raises(ValueError, match="ignore_fingerprint=true") as refusal:
        plan.refuse_changes(new)
    for change in ("seed: 1 -> 2", "optimizer.betas: [0.9, 0.95] -> [0.9, 0.99]", "optimizer.momentum: None -> 0.9"):
        assert change in str(refusal.value)
    assert "lr" not in str(refusal.value) and "text" not in str(refusal.value)


def test_what_is_no_checkpoint_of_a_training_is_refused(resumable):
    AtomicCheckpointIO().save_checkpoint({"minigpt": {}}, resumable / "checkpoints/step_20.ckpt")
    with pytest.raises(ValueError, match="has no state_dict, optimizer_states"):
        plan_resume(resumable, max_steps=30)


def test_a_complete_run_is_only_resumed_for_more_steps(resumable):
    write_summary(resumable, {"status": "completed", "steps": 10})
    with pytest.raises(ValueError, match=r"complete at step 10: add trainer\.max_steps=N"):
        plan_resume(resumable, max_steps=10)
    assert plan_resume(resumable, max_steps=11).step == 10


def test_which_run_a_command_continues(resumable, tmp_path):
    runs_dir = tmp_path / "none"
    assert select_run(None, None, runs_dir, []) is None
    assert select_run(str(resumable), None, runs_dir, []) == resumable
    with pytest.raises(ValueError, match="no run in"):
        select_run("latest", None, runs_dir, [])
    assert select_run("auto", None, runs_dir, []) is None
    assert select_run("auto", str(resumable), runs_dir, []) == resumable
    assert select_run("auto", None, resumable.parent, []) == resumable
    write_summary(resumable, {"status": "completed", "steps": 10})
    assert select_run("auto", None, resumable.parent, []) is None, "the newest one is complete: a new one begins"
    assert select_run("auto", str(resumable), runs_dir, []) == resumable


def settings(tmp_path, **paths):
    paths = {"runs_dir": str(tmp_path / "logs" / "runs"), "run_dir": None} | paths
    return {"name": "a", "resume": None, "paths": paths, "ignore_fingerprint": False}


@pytest.mark.parametrize("run_dir", [None, "deep/inside/run"])
def test_a_run_that_never_starts_leaves_nothing(tmp_path, run_dir):
    config = settings(tmp_path, run_dir=None if run_dir is None else str(tmp_path / run_dir))
    with open_run(config, [], "") as run:
        assert (run.directory / "checkpoints").is_dir()
    assert list(tmp_path.iterdir()) == []
    with open_run(config, ["seed=1"], "") as run:
        run.start({})
    assert (run.directory / "config.yaml").is_file() and (run.directory / ".hydra/overrides.yaml").is_file()


def test_a_directory_into_which_something_was_put_stays(tmp_path):
    with open_run(settings(tmp_path), [], "") as run:
        (run.directory / "notes.txt").write_text("mine")
    assert (run.directory / "notes.txt").read_text() == "mine"


def test_a_resumed_run_has_the_options_of_its_start_and_the_new_ones(resumable):
    write_summary(resumable, {"status": "interrupted", "steps": 10, "overrides": ["seed=1", "model=nano"]})
    config = settings(resumable) | {"resume": str(resumable), "trainer": {"max_steps": 20}}
    with open_run(config, [f"resume={resumable}", "seed=1", "trainer.max_steps=20"], "") as run:
        assert run.overrides == ["seed=1", "model=nano", "trainer.max_steps=20"]
    assert run.plan.step == 10 and run.previous_summary["steps"] == 10 and run.directory == resumable
    assert list(run.files) == ["config.yaml"], "what was written at its start stays"


@pytest.mark.parametrize(("ignore", "refused"), [(False, True), (True, False)])
def test_a_run_that_would_be_another_starts_only_when_it_is_told_to(resumable, ignore, refused):
    config = settings(resumable) | {
        "resume": str(resumable),
        "trainer": {"max_steps": 20},
        "ignore_fingerprint": ignore,
    }
    run = open_run(config, [], "")
    if refused:
        with pytest.raises(ValueError, match="ignore_fingerprint"):
            run.start(FINGERPRINT | {"seed": 2})
    else:
        run.start(FINGERPRINT | {"seed": 2})


def test_what_an_earlier_run_left_before_its_first_checkpoint_is_removed(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("metrics.csv", "samples.md"):
        (tmp_path / "run" / name).write_text("of another run")
    with open_run(settings(tmp_path, run_dir=str(tmp_path / "run")), [], "") as run:
        run.start({})
    assert not (tmp_path / "run/metrics.csv").exists() and not (tmp_path / "run/samples.md").exists()


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, []),
        ({"a": {"b": 1}}, {"a": None}, ["a: {'b': 1} -> None"]),
        ({"a": None}, {"a": {"b": 1}}, ["a: None -> {'b': 1}"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "d": 4}}, ["a.b: 1 -> 3", "a.c: 2 -> None", "a.d: None -> 4"]),
        ({"a": "x" * 38}, {"a": "x" * 39}, [f"a: {'x' * 38!r} -> {repr('x' * 39)[:37]}..."]),
    ],
)
def test_differences_are_named_by_their_options(old, new, found):
    assert list(differences(old, new)) == found


@pytest.mark.parametrize(
    ("summary", "max_steps", "complete"),
    [
        ({}, 0, False),
        ({"status": "completed"}, None, True),  # how many steps it should have had does not matter
        ({"status": "completed", "steps": 10}, 10, True),
        ({"status": "completed", "steps": 10}, 11, False),
        ({"status": "interrupted", "steps": 10}, 10, False),
    ],
)
def test_a_run_is_complete_that_ended_by_itself_with_all_its_steps(summary, max_steps, complete):
    assert is_complete(summary, *([] if max_steps is None else [max_steps])) is complete


def test_a_directory_with_something_else_in_a_file_s_place_takes_no_run(tmp_path):
    (tmp_path / "run/summary.json").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"summary\.json is not a regular file"):
        open_run(settings(tmp_path, run_dir=str(tmp_path / "run")), [], "")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["summary.json"]


def test_a_directory_that_was_there_stays(tmp_path):
    (tmp_path / "run").mkdir()
    with open_run(settings(tmp_path, run_dir=str(tmp_path / "run")), [], ""):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../a", "a\0b"])
def test_a_name_that_is_no_folder_s_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="folder's name"):
        open_run(settings(tmp_path) | {"name": name}, [], "")


def test_a_summary_is_valid_json_whatever_the_numbers(tmp_path):
    write_summary(tmp_path, {"val_loss": float("nan"), "steps": 3})
    assert read_summary(tmp_path) == {"val_loss": None, "steps": 3}


def test_ranking_puts_the_lowest_first_and_the_failed_last(tmp_path):
    for job, (loss, bpc) in enumerate([(1.0, 2.0), (None, None), (3.0, 1.0)]):
        (tmp_path / str(job)).mkdir()
        status = "completed" if loss else "failed"
        overrides = [f"seed={job}", "model=nano"]
        figures = {"val_loss_best": loss, "val_bpc_best": bpc}  # a token of job 2 is several characters
        write_summary(tmp_path / str(job), {**figures, "status": status, "overrides": overrides})
    rows = rank_jobs(tmp_path)
    assert [r["overrides"] for r in rows] == ["seed=2", "seed=0", "seed=1"], "what a job does not share with the others"
    (tmp_path / "3").mkdir()
    rows = rank_jobs(tmp_path)
    assert [(r["rank"], r["job"], r["status"]) for r in rows] == [
        (1, 2, "completed"),
        (2, 0, "completed"),
        (3, 1, "failed"),
        (4, 3, "failed"),
    ]
    write_ranking(tmp_path, rows)
    assert json.loads((tmp_path / "ranking.json").read_text()) == rows
    with (tmp_path / "ranking.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(r["job"], r["overrides"], r["val_bpc_best"]) for r in table[:2]] == [
        ("2", "seed=2", "1.0"),
        ("0", "seed=0", "2.0"),
    ]
    assert len(table) == 4


def test_a_checkpoint_at_wandb_is_no_run_to_be_resumed(tmp_path):
    with pytest.raises(ValueError, match="is a checkpoint alone, for evaluate, generate and export: resume=RUN_DIR"):
        find_run("wandb:me/minigpt/abc", tmp_path)
