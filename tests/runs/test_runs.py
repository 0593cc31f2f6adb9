"""Run directories and checkpoint files."""

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from minigpt.runs.checkpoints import (
    AtomicCheckpointIO,
    check_space,
    is_sound,
    link,
    load_checkpoint,
    newest_sound,
    seal,
    set_aside,
    sweep,
)
from minigpt.runs.directory import find_checkpoint, find_run, make_run_directory, step_checkpoints
from minigpt.runs.run import NEEDED, refuse_another_run, refuse_links
from minigpt.runs.summary import read_summary, write_summary
from minigpt.runs.sweep import rank_jobs, write_ranking


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
        assert not is_sound(newest), position
        with pytest.raises(ValueError, match="damaged"):
            load_checkpoint(newest)
        assert newest_sound(saved) == saved / "step_10.ckpt"
    set_aside(saved, saved / "step_10.ckpt")
    assert {p.name for p in saved.iterdir()} == {"step_10.ckpt", "step_20.damaged"}
    newest.write_bytes(whole)
    assert newest_sound(saved) == newest and load_checkpoint(newest)["step"] == 20


def test_saving_in_the_background_keeps_the_state_of_its_moment(tmp_path):
    io, weights = AtomicCheckpointIO(), torch.ones(1000)
    io.background = True
    io.save_checkpoint({"weights": weights, "nested": [{"x": weights}]}, tmp_path / "step_1.ckpt")
    weights.zero_()
    published = []
    io.then(lambda: published.append(is_sound(tmp_path / "step_1.ckpt")))
    io.finish()
    loaded = load_checkpoint(tmp_path / "step_1.ckpt")
    assert loaded["weights"].sum() == loaded["nested"][0]["x"].sum() == 1000
    assert published == [True], "only once the file is there"


def test_a_failed_save_in_the_background_is_told_and_nothing_is_published(tmp_path):
    io, published = AtomicCheckpointIO(), []
    io.background = True
    (tmp_path / "file").write_text("")
    io.save_checkpoint({"x": 1}, tmp_path / "file" / "step_1.ckpt")
    io.then(lambda: published.append(1))
    with pytest.raises(OSError, match="file"):
        io.finish()
    assert not published
    io.save_checkpoint({"x": 1}, tmp_path / "step_2.ckpt")
    io.finish()
    assert is_sound(tmp_path / "step_2.ckpt")


def test_a_disk_without_room_is_refused(tmp_path):
    check_space(tmp_path / "new" / "folder", 10**6, 4)
    assert not list(tmp_path.iterdir()), "asking leaves nothing"
    with pytest.raises(ValueError, match=r"MB free, 4 checkpoints take"):
        check_space(tmp_path / "new", 10**17, 4)


def test_links_in_a_run_directory_are_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    refuse_links(tmp_path)
    (tmp_path / "metrics.csv").symlink_to("/dev/null")
    with pytest.raises(ValueError, match=r"metrics\.csv is a symbolic link"):
        refuse_links(tmp_path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "step_1.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data", bytes(10**7))
    with path.open("r+b") as file:
        seal(file)
    assert is_sound(path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_sealed_checkpoint_is_an_ordinary_torch_file(saved):
    assert torch.load(saved / "step_10.ckpt", weights_only=True)["step"] == 10


def test_the_highest_step_counts_and_not_the_clock(saved):
    os.utime(saved / "step_10.ckpt", (2e9, 2e9))
    assert newest_sound(saved).name == "step_20.ckpt"


def test_what_interrupted_saves_left_is_swept(saved):
    (saved / ".step_30.ckpt-x1y2").write_bytes(b"half")
    sweep(saved)
    assert {p.name for p in saved.iterdir()} == {"step_10.ckpt", "step_20.ckpt"}


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
        seal(file)  # whoever writes a trap can seal it too
    assert is_sound(tmp_path / "trap.ckpt")
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


def test_a_run_that_would_be_another_is_refused(tmp_path):
    old = {"seed": 1, "optimizer": {"lr": 0.02, "betas": [0.9, 0.95]}, "text": "abc"}
    content = {name: {} for name in NEEDED} | {"minigpt": {"fingerprint": old}}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "step_1.ckpt")
    refuse_another_run(tmp_path / "step_1.ckpt", {**old})
    new = {"seed": 2, "optimizer": {"lr": 0.02, "betas": [0.9, 0.99], "momentum": 0.9}, "text": "abc"}
    with pytest.raises(ValueError, match="resume_anyway=true") as refusal:
        refuse_another_run(tmp_path / "step_1.ckpt", new)
    for change in ("seed: 1 -> 2", "optimizer.betas: [0.9, 0.95] -> [0.9, 0.99]", "optimizer.momentum: None -> 0.9"):
        assert change in str(refusal.value)
    assert "lr" not in str(refusal.value) and "text" not in str(refusal.value)
    refuse_another_run(tmp_path / "step_1.ckpt", new, anyway=True)
    AtomicCheckpointIO().save_checkpoint({"minigpt": {}}, tmp_path / "step_2.ckpt")
    with pytest.raises(ValueError, match="has no state_dict, optimizer_states"):
        refuse_another_run(tmp_path / "step_2.ckpt", new, anyway=True)


def test_a_summary_is_valid_json_whatever_the_numbers(tmp_path):
    write_summary(tmp_path, {"val_loss": float("nan"), "steps": 3})
    assert read_summary(tmp_path) == {"val_loss": None, "steps": 3}
    (tmp_path / "summary.json").write_text("{half")
    assert read_summary(tmp_path) is None


def test_ranking_puts_the_lowest_first_and_the_failed_last(tmp_path):
    for job, (loss, bpc) in enumerate([(1.0, 2.0), (None, None), (3.0, 1.0)]):
        (tmp_path / str(job)).mkdir()
        status = "completed" if loss else "failed"
        overrides = [f"seed={job}", "model=nano"]
        figures = {"val_loss_best": loss, "val_bpc_best": bpc}  # a token of job 2 is several characters
        write_summary(tmp_path / str(job), {**figures, "status": status, "overrides": overrides})
    (tmp_path / "3").mkdir()
    rows = rank_jobs(tmp_path)
    assert [(r["rank"], r["job"], r["status"]) for r in rows] == [
        (1, 2, "completed"),
        (2, 0, "completed"),
        (3, 1, "failed"),
        (4, 3, "failed"),
    ]
    write_ranking(tmp_path, rows)
    assert (tmp_path / "ranking.csv").read_text().count("\n") == 5
