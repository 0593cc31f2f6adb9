"""Processes that are killed at random moments, in a run and in the middle of a save."""

import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from benchmarks.faults.comparison import difference, equal_weights, state_dict
from benchmarks.faults.harness import BASELINE, TINY, Process, parallel, run
from benchmarks.faults.results import Row, count_passed
from benchmarks.faults.system import other_disk

STEPS = 40


def tmpdir(folder: Path, number: int) -> dict[str, str]:
    """TMPDIR beside the run for even trials, on another file system for odd ones."""
    path = folder / "tmp" if number % 2 == 0 else other_disk(folder)
    path.mkdir(exist_ok=True)
    return {"TMPDIR": str(path)}


def kill_and_resume(folder: Path, seconds: float, number: int) -> str:
    """Kill a run once or twice at random moments, then resume it; returns its difference from an unbroken run."""
    rng, run_dir = random.Random(number), folder / f"killed-{number}"
    options = [*TINY, f"trainer.max_steps={STEPS}", "resume=auto", f"paths.run_dir={run_dir}"]
    options += [f"trainer.async_save={'true' if number % 4 < 2 else 'false'}"]
    for _ in range(rng.choice((1, 1, 2))):
        process = Process(options, folder, environment=tmpdir(folder, number))
        time.sleep(rng.uniform(0.2, seconds))
        process.kill()
        process.wait()
    done = run(options, folder, environment=tmpdir(folder, number))
    return str(done) if done.exit_code else difference(folder / "unbroken", run_dir)


def kill_and_resume_baseline(folder: Path, seconds: float, number: int) -> str:
    """The same for the baseline, resumed with Lightning's own `ckpt_path="last"`."""
    rng, run_dir = random.Random(number), folder / f"baseline-{number}"
    options = [f"folder={run_dir}", f"max_steps={STEPS}"]
    environment = tmpdir(folder, number)
    process = Process(options, folder, script=BASELINE, environment=environment)
    time.sleep(rng.uniform(0.2, seconds))
    process.kill()
    process.wait()
    done = run([*options, "resume=last"], folder, script=BASELINE, environment=environment)
    if done.exit_code:
        return f"exit code {done.exit_code}"
    expected, found = (state_dict(d / "checkpoints/last.ckpt") for d in (folder / "baseline-unbroken", run_dir))
    return "" if equal_weights(expected, found) else "weights"


def killed(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """SIGKILL at random moments, then resumed: the finished run equals an unbroken one."""
    unbroken = run([*TINY, f"trainer.max_steps={STEPS}", f"paths.run_dir={folder / 'unbroken'}"], folder)
    assert unbroken.exit_code == 0, unbroken.stderr
    ours = count_passed(parallel(partial(kill_and_resume, folder, unbroken.seconds), range(trials)))
    baseline = None
    if baselines:
        unbroken = run([f"folder={folder / 'baseline-unbroken'}", f"max_steps={STEPS}"], folder, script=BASELINE)
        assert unbroken.exit_code == 0, unbroken.stderr
        trial = partial(kill_and_resume_baseline, folder, unbroken.seconds)
        baseline = count_passed(parallel(trial, range(baselines)))
    fault = "SIGKILL at a random moment, then resumed: weights, optimizer, metrics and samples identical"
    yield Row(fault, ours, "Lightning, ckpt_path='last'", baseline)


def save_until_killed(lightnings: bool, folder: Path, ready: Path, environment: dict[str, str]) -> None:
    """Save 24 MB again and again, with Lightning's checkpoint plugin or miniGPT's."""
    os.environ |= environment
    tempfile.tempdir = None  # read TMPDIR again
    state = {"weights": torch.randn(6_000_000)}
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

    from minigpt.runs.checkpoint_io import AtomicCheckpointIO, link

    plugin = TorchCheckpointIO() if lightnings else AtomicCheckpointIO()
    for step in range(10_000):
        if lightnings:
            plugin.save_checkpoint(state, folder / "last.ckpt")
        else:
            plugin.save_checkpoint(state, folder / f"step_{step}.ckpt")
            link(folder / f"step_{step}.ckpt", folder / "last.ckpt")
            (folder / f"step_{step - 2}.ckpt").unlink(missing_ok=True)
        ready.touch()


def kill_while_saving(folder: Path, lightnings: bool, number: int) -> str:
    """Kill a process in the middle of a save; returns what is wrong with the newest checkpoint."""
    from minigpt.runs.checkpoint_io import load_latest

    checkpoints = folder / f"saving-{lightnings}-{number}"
    checkpoints.mkdir()
    ready, environment = folder / f"ready-{lightnings}-{number}", tmpdir(folder, number)
    pid = os.fork()
    if pid == 0:
        try:
            save_until_killed(lightnings, checkpoints, ready, environment)
        finally:
            os._exit(1)
    while not ready.exists():
        time.sleep(0.002)
    time.sleep(random.Random(number).uniform(0.02, 0.3))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        if not lightnings and load_latest(checkpoints) is None:
            return "no valid checkpoint"
        torch.load(checkpoints / "last.ckpt", weights_only=True)
    except Exception as error:
        return type(error).__name__
    finally:
        shutil.rmtree(checkpoints)
    return ""


def saving(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """SIGKILL in the middle of saves of 24 MB."""
    ours = count_passed(parallel(partial(kill_while_saving, folder, False), range(trials)))
    baseline = None
    if baselines:
        baseline = count_passed(parallel(partial(kill_while_saving, folder, True), range(baselines)))
    fault = "SIGKILL while 24 MB are saved, TMPDIR on the same and on another disk: last.ckpt loads"
    yield Row(fault, ours, "Lightning's TorchCheckpointIO", baseline)
