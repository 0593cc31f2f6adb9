"""A requeued Slurm job finds the run that the same command began."""

import pytest
import yaml

from minigpt.runs.directory import make_run_directory
from minigpt.runs.slurm import requeue, requeued_run


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("PATH", "")


def begin(parent, *overrides):
    run = make_run_directory(parent, "run")
    (run / "config.yaml").write_text("")
    (run / ".hydra").mkdir()
    (run / ".hydra/overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return run


def test_the_same_command_finds_its_run(job, tmp_path):
    run, other = begin(tmp_path, "seed=1"), begin(tmp_path, "seed=2")
    assert "slurm77" in run.name
    assert requeued_run(tmp_path, ["seed=1"]) == run
    assert requeued_run(tmp_path, ["seed=2"]) == other
    assert requeued_run(tmp_path, ["seed=3"]) is None


def test_only_in_a_job_that_was_requeued(job, tmp_path, monkeypatch):
    begin(tmp_path, "seed=1")
    for name, value in (("SLURM_RESTART_COUNT", "0"), ("SLURM_JOB_ID", "78")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert requeued_run(tmp_path, ["seed=1"]) is None


def test_without_slurm_s_tools_one_is_told(job):
    assert "submit the job again" in requeue()
