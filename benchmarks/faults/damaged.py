"""Checkpoints that are truncated, have flipped bits, or carry a wrong modification time."""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from benchmarks.faults.comparison import difference
from benchmarks.faults.harness import BASELINE, TINY, Process, parallel, run
from benchmarks.faults.results import Result, Row, count_passed

STEPS = 40


def damage(content: bytes, number: int) -> bytes:
    """Truncate the content in the first twenty trials, flip one bit in the others."""
    rng = random.Random(number)
    if number < 20:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def damage_and_resume(folder: Path, number: int) -> str:
    """Resume a run whose newest checkpoint was damaged; returns its difference from an unbroken run."""
    run_dir = folder / f"damaged-{number}"
    shutil.copytree(folder / "half", run_dir, copy_function=shutil.copy2)
    newest = run_dir / "checkpoints" / f"step_{STEPS - 2}.ckpt"
    content = newest.read_bytes()
    newest.unlink()
    newest.write_bytes(damage(content, number))
    done = run([f"resume={run_dir}", f"trainer.max_steps={STEPS}", "ignore_fingerprint=true"], folder)
    failure = str(done) if done.exit_code else difference(folder / "unbroken", run_dir)
    if not failure and f"step_{STEPS - 2}.ckpt is damaged" not in done.stderr:
        failure = "not reported"
    shutil.rmtree(run_dir)
    return failure


def load_damaged(folder: Path, count: int) -> Iterator[str]:
    """Load damaged checkpoints with Lightning's plugin; a failure is a checkpoint that loads without an error."""
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

    path = folder / "baseline.ckpt"
    checkpoint = torch.load(folder / "unbroken/checkpoints/last.ckpt", weights_only=True)
    TorchCheckpointIO().save_checkpoint(checkpoint, path)
    content = path.read_bytes()
    for number in range(count):
        path.write_bytes(damage(content, number))
        try:
            TorchCheckpointIO().load_checkpoint(path)
            yield "loaded without an error"
        except Exception:
            yield ""


def damaged(folder: Path, trials: int, baselines: int) -> Iterator[Row]:
    """Truncated checkpoints and flipped bits: detected, and the run is resumed from the checkpoint before."""
    unbroken = run([*TINY, f"trainer.max_steps={STEPS}", f"paths.run_dir={folder / 'unbroken'}"], folder)
    assert unbroken.exit_code == 0, unbroken.stderr
    options = [*TINY, f"trainer.max_steps={STEPS}", f"paths.run_dir={folder / 'half'}"]
    assert Process(options, folder, before=stop_early).wait().exit_code == 143
    ours = count_passed(parallel(partial(damage_and_resume, folder), range(trials)))
    baseline = count_passed(load_damaged(folder, baselines)) if baselines else None
    fault = "checkpoint truncated (20) or one bit flipped: detected, and the run resumed from the one before"
    yield Row(fault, ours, "Lightning's TorchCheckpointIO: detected at all", baseline)


def stop_early() -> None:
    """Patch the run to receive SIGTERM two steps before its end."""
    from minigpt.training.callbacks.graceful_stop import GracefulStop

    def on_train_batch_end(self, trainer, *rest, original=GracefulStop.on_train_batch_end) -> None:
        if trainer.global_step == STEPS - 2 and self.received is None:
            self.received = signal.SIGTERM
        original(self, trainer, *rest)

    GracefulStop.on_train_batch_end = on_train_batch_end


def clock(folder: Path, baselines: int) -> Iterator[Row]:
    """An old checkpoint with a modification time in 2034: checkpoints are ordered by step, not by time."""
    run_dir, future = folder / "clock", (2.05e9, 2.05e9)
    options = [*TINY, "trainer.max_steps=8", f"paths.run_dir={run_dir}", "callbacks.checkpoints.keep_last_n=9"]
    assert run(options, folder).exit_code == 0
    os.utime(run_dir / "checkpoints/step_2.ckpt", future)
    done = run([f"resume={run_dir}", "trainer.max_steps=10", "ignore_fingerprint=true"], folder)
    ours = Result(int("resuming after step 8" in done.stdout), 1)
    baseline = None
    if baselines:
        place = folder / "clock-baseline"
        checkpoints = place / "checkpoints"
        assert run([f"folder={place}", "max_steps=8"], folder, script=BASELINE).exit_code == 0
        (checkpoints / "last.ckpt").unlink()
        next(checkpoints.glob("*step=2.ckpt")).rename(checkpoints / "last-v1.ckpt")
        next(checkpoints.glob("*step=8.ckpt")).rename(checkpoints / "last.ckpt")
        os.utime(checkpoints / "last-v1.ckpt", future)
        seen = place / "resumed"
        options = [f"folder={place}", "max_steps=9", "resume=last"]
        run(options, folder, script=BASELINE, before=partial(record_first_step, seen))
        step = seen.read_text() if seen.is_file() else "none"
        baseline = Result(int(step == "8"), 1, f"resumed after step {step}")
    yield Row("old checkpoint with a later modification time: the highest step is resumed", ours, "Lightning", baseline)


def record_first_step(path: Path) -> None:
    """Patch Lightning to write the step that a run starts at to a file."""
    import lightning

    original = lightning.LightningModule.on_train_start

    def on_train_start(self) -> None:
        path.write_text(str(self.global_step))
        original(self)

    lightning.LightningModule.on_train_start = on_train_start
