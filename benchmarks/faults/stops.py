"""Signals that stop a run: SIGINT, SIGTERM, SIGHUP, and SIGUSR1 in a Slurm job."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.comparison import has_records, read_summary_file
from benchmarks.faults.harness import BASELINE, TINY, Process, run
from benchmarks.faults.results import Result, Row

LONG = ["trainer.max_steps=100000", "trainer.val_every_n_steps=100000", "callbacks.checkpoints.every_n_steps=50000"]
LONG_BASELINE = ["max_steps=100000", "every=50000"]


def signals(folder: Path, baselines: int) -> Iterator[Row]:
    """SIGTERM, SIGINT and SIGHUP: the run finishes the step and saves a checkpoint."""
    good, slowest, failures = 0, 0.0, []
    for trial, number in enumerate((signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 2):
        run_dir = folder / f"signal-{trial}"
        process = Process([*TINY, *LONG, f"paths.run_dir={run_dir}"], folder)
        process.wait_until(lambda run_dir=run_dir: has_records(run_dir, 4))
        start = time.monotonic()
        os.kill(process.pid, number)
        done = process.wait(30)
        slowest = max(slowest, time.monotonic() - start)
        summary = read_summary_file(run_dir)
        saved = run_dir / "checkpoints" / f"step_{summary.get('steps')}.ckpt"
        if done.exit_code == 128 + number and saved.is_file() and summary["status"] == "interrupted":
            good += 1
        else:
            failures.append(f"signal {number}: {done}")
    good += (repeated := second_interrupt(folder)) < 5
    note = f"slowest exit {slowest:.2f} s after the signal, {repeated:.2f} s after a second one"
    fault = "SIGTERM, SIGINT, SIGHUP: step finished and saved, exit codes 143, 130, 129; a second SIGINT exits at once"
    baseline = signals_baseline(folder) if baselines else None
    yield Row(fault, Result(good, 7, "; ".join(failures) or note), "Lightning", baseline)


def signals_baseline(folder: Path) -> Result:
    """Exit codes and checkpoints of the baseline after SIGTERM and SIGINT."""
    codes, saved = [], 0
    for number in (signal.SIGTERM, signal.SIGINT):
        place = folder / f"baseline-signal-{number}"
        process = Process([f"folder={place}", *LONG_BASELINE], folder, script=BASELINE)
        process.wait_until((place / "csv/metrics.csv").is_file)
        time.sleep(0.5)
        os.kill(process.pid, number)
        codes.append(process.wait(30).exit_code)
        saved += bool(list(place.rglob("*.ckpt")))
    good = sum(code == expected for code, expected in zip(codes, (143, 130), strict=True))
    return Result(good if saved == 2 else 0, 2, f"exit codes {codes}, {saved} checkpoints")


def second_interrupt(folder: Path) -> float:
    """Seconds from a second SIGINT, during a step of eight seconds, to the exit; infinite if the code is not 130."""
    run_dir = folder / "twice"
    process = Process([*TINY, *LONG, f"paths.run_dir={run_dir}"], folder, before=slow_steps)
    process.wait_until((run_dir / "metrics.csv").is_file)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    done = process.wait(30)
    seconds = time.monotonic() - start
    return seconds if done.exit_code == 130 else float("inf")


def slow_steps() -> None:
    """Patch every step after the first to take eight seconds."""
    from minigpt.training.module import LanguageModel

    def training_step(self, batch, batch_index, original=LanguageModel.training_step):
        if batch_index > 1:
            time.sleep(8)
        return original(self, batch, batch_index)

    LanguageModel.training_step = training_step


def fake_slurm(folder: Path) -> dict[str, str | None]:
    """The environment of a Slurm job whose `scontrol` writes its arguments to the file `requeued`."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/requeued\n')
    (tools / "scontrol").chmod(0o755)
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS_PER_NODE": "1",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }


def preemption(folder: Path, baselines: int) -> Iterator[Row]:
    """SIGUSR1 in a Slurm job: the run is saved and requeued, and the same command resumes it."""
    slurm, place = fake_slurm(folder), folder / "slurm"
    # The scheduler repeats the command, which cannot know the step; the run ends at the given length.
    options = [*TINY, "trainer.max_steps=400", "trainer.val_every_n_steps=400", f"paths.log_dir={place}"]
    options += ["callbacks.checkpoints.every_n_steps=400"]
    process = Process(options, folder, environment=slurm)
    process.wait_until(lambda: list(place.glob("runs/*/metrics.csv")))
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGUSR1)
    first = process.wait()
    requeued = (folder / "requeued").read_text() if (folder / "requeued").exists() else ""
    second = run(options, folder, environment=slurm | {"SLURM_RESTART_COUNT": "1"})
    runs = list(place.glob("runs/*"))
    ok = first.exit_code == 138 and requeued == "requeue 4242\n" and second.exit_code == 0 and len(runs) == 1
    ok = ok and "resuming after step" in second.stdout and read_summary_file(runs[0])["steps"] == 400
    ours = Result(int(ok), 1, "" if ok else f"{first} {requeued} {second} {len(runs)} run directories")
    fault = "Slurm preemption (SIGUSR1): saved, requeued, and resumed by the same command in the same run directory"
    yield Row(fault, ours, "Lightning without srun", preemption_baseline(folder) if baselines else None)


def preemption_baseline(folder: Path) -> Result:
    """Whether the baseline saves a checkpoint on SIGUSR1."""
    place = folder / "baseline-slurm"
    options, environment = [f"folder={place}", *LONG_BASELINE], {"SLURM_JOB_ID": "1"}
    process = Process(options, folder, script=BASELINE, environment=environment)
    process.wait_until((place / "csv/metrics.csv").is_file)
    os.kill(process.pid, signal.SIGUSR1)
    done = process.wait(30)
    saved = len(list(place.rglob("*.ckpt")))
    return Result(int(saved > 0), 1, f"exit code {done.exit_code}, {saved} checkpoints")
