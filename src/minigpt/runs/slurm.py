"""Slurm: which job this is, and how it goes on after it was preempted."""

import os
import shutil
import subprocess
from pathlib import Path

from minigpt.runs.directory import CONFIG
from minigpt.runs.untrusted import read_yaml


def job_id() -> str | None:
    """The job that this process belongs to; it stays the same when the job is requeued."""
    return os.environ.get("SLURM_JOB_ID")


def requeued_run(runs_dir: Path, overrides: list[str]) -> Path | None:
    """The run that the same command began before this job was requeued; None in a job that never was."""
    if job_id() is None or os.environ.get("SLURM_RESTART_COUNT", "0") == "0":
        return None
    same = [p.parent for p in runs_dir.glob(f"*-slurm{job_id()}*/{CONFIG}") if began_with(p.parent, overrides)]
    return max(same, default=None, key=lambda run: run.name)


def began_with(run: Path, overrides: list[str]) -> bool:
    """Whether a run was started with these options.

    Raises:
        UntrustedFileError: its record of them is damaged. To begin anew then would lose what the job has done.
    """
    path = run / ".hydra/overrides.yaml"
    return os.path.lexists(path) and read_yaml(path) == overrides


def requeue() -> str:
    """Ask Slurm to run this job again from its start; returns what came of that."""
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return "there is no scontrol here: submit the job again to go on"
    done = subprocess.run([scontrol, "requeue", job_id() or ""], capture_output=True, text=True, check=False)
    return f"requeued job {job_id()}" if done.returncode == 0 else f"scontrol requeue failed: {done.stderr.strip()}"
