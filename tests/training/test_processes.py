"""No process of a run outlives it."""

import os
import signal
from types import SimpleNamespace

import pytest

from minigpt.training import processes
from minigpt.training.processes import is_started_by_run, kill_other_ranks


@pytest.fixture
def environment(monkeypatch):
    for name in ("LOCAL_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "started"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, True),
        ({"LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}, False),
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1", "GROUP_RANK": "0"}, False),
    ],
)
def test_which_processes_this_run_has_started(environment, variables, started):
    for name, value in variables.items():
        environment.setenv(name, value)
    assert is_started_by_run() is started


@pytest.mark.parametrize("rank", ["0", "1"])
def test_after_a_failure_the_others_are_killed(environment, rank):
    environment.setenv("LOCAL_RANK", rank)
    done, gone = [], SimpleNamespace(kill=lambda: (_ for _ in ()).throw(ProcessLookupError))
    environment.setattr(processes, "time", SimpleNamespace(sleep=lambda seconds: done.append(seconds)))
    environment.setattr(os, "kill", lambda pid, number: done.append((pid, number)))
    others = [gone, SimpleNamespace(kill=lambda: done.append("killed"))]
    kill_other_ranks(SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=others))))
    waited = [15.0, (os.getppid(), signal.SIGKILL)]
    assert done == ["killed", *(waited if rank == "1" else [])], "rank 0 has time to write the summary"
    done.clear()
    kill_other_ranks(SimpleNamespace(strategy=SimpleNamespace(launcher=None)))
    assert done == (waited if rank == "1" else [])
