"""Runs on two devices, and on a number of devices that changes."""

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.comparison import difference, equal_weights, metric_records, read_summary_file, state_dict
from benchmarks.faults.harness import BASELINE, TINY, TRAIN, subprocess_environment
from benchmarks.faults.results import Result, Row, count_passed

TWO_DEVICES = [*TINY, "trainer.devices=2", "trainer.max_steps=16"]


def start(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run src/train.py as a user does, not forked."""
    command = [sys.executable, str(TRAIN), *options]
    return subprocess.run(
        command, cwd=folder, env=subprocess_environment(), capture_output=True, text=True, check=False
    )


def kill_and_resume(folder: Path, number: int) -> str:
    """Kill a run on two devices after its first checkpoint, then resume it; returns its difference."""
    run_dir = folder / f"two-{number}"
    options = [*TWO_DEVICES, "resume=auto", f"paths.run_dir={run_dir}"]
    command, environment = [sys.executable, str(TRAIN), *options], subprocess_environment()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=-3, stderr=-3) as process:
        while not list(run_dir.glob("checkpoints/step_*.ckpt")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(random.Random(number).uniform(0, 0.4))
        process.kill()
    done = start(folder, *options)
    return done.stderr[-300:] if done.returncode else difference(folder / "unbroken", run_dir)


def change_devices(folder: Path) -> str:
    """Resume a run on 1, 2 and 1 devices: the steps and token counts must be those of an unbroken run."""
    run_dir = folder / "changing"
    for count, steps in ((1, 6), (2, 12), (1, 16)):
        options = [f"resume={run_dir}"] if run_dir.is_dir() else [*TINY, f"paths.run_dir={run_dir}"]
        options += [f"trainer.devices={count}", f"trainer.max_steps={steps}"]
        start(folder, *options, *(["ignore_fingerprint=true"] * (steps > 6)))
    found, expected = ([r for r in metric_records(d) if r[1]] for d in (run_dir, folder / "unbroken"))
    same_steps = [r[0] for r in found] == [str(n) for n in range(1, 17)]
    same_tokens = [r[-1] for r in found] == [r[-1] for r in expected]
    complete = read_summary_file(run_dir).get("steps") == 16
    return "" if complete and same_steps and same_tokens else "records after 1, 2, 1 devices"


def resume_baseline(folder: Path) -> Result:
    """The baseline on two devices, stopped at step 8 and resumed."""
    place = folder / "baseline"
    for options in (
        [f"folder={place}-unbroken", "max_steps=16"],
        [f"folder={place}", "max_steps=8"],
        [f"folder={place}", "max_steps=16", "resume=last"],
    ):
        command = [sys.executable, str(BASELINE), "devices=2", *options]
        subprocess.run(command, env=subprocess_environment(), capture_output=True, check=True)
    one, two = (state_dict(Path(f"{place}{end}/checkpoints/last.ckpt")) for end in ("-unbroken", ""))
    equal = equal_weights(one, two)
    return Result(int(equal), 1, "" if equal else "other weights after a resume")


def devices(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """Two devices: a resumed run equals an unbroken one; the batches do not depend on the number of devices."""
    unbroken = start(folder, *TWO_DEVICES, f"paths.run_dir={folder / 'unbroken'}")
    assert unbroken.returncode == 0, unbroken.stderr
    failures = [kill_and_resume(folder, number) for number in range(trials)]
    ours = count_passed([*failures, change_devices(folder)])
    fault = "two devices: killed and resumed, bit-identical; resumed on 1, 2 and 1 devices without a gap"
    yield Row(fault, ours, "Lightning", resume_baseline(folder) if baselines else None)
