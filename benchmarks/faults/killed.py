"""Processes that are killed, and disks that damage what was written."""

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
from benchmarks.faults.stock import __file__ as stock_file
from benchmarks.faults.trial import (
    TINY,
    Process,
    Result,
    Row,
    metric_rows,
    other_disk,
    parallel,
    run,
    same_run,
)

STOCK = Path(stock_file)
STEPS = 40


def temporary_folder(folder: Path, number: int) -> dict[str, str]:
    """TMPDIR beside the run for even trials, on another file system for odd ones."""
    place = folder / "tmp" if number % 2 == 0 else other_disk(folder)
    place.mkdir(exist_ok=True)
    return {"TMPDIR": str(place)}


def kill_and_resume(folder: Path, seconds: float, number: int) -> str:
    """A run that is killed once or twice at random moments and then left alone; what differs from the whole one."""
    chance, directory = random.Random(number), folder / f"killed-{number}"
    options = [*TINY, f"trainer.max_steps={STEPS}", "resume=auto", f"paths.run_dir={directory}"]
    options += [f"callbacks.checkpoints.background={'true' if number % 4 < 2 else 'false'}"]
    for _ in range(chance.choice((1, 1, 2))):
        process = Process(options, folder, environment=temporary_folder(folder, number))
        time.sleep(chance.uniform(0.2, seconds))
        process.kill()
        process.wait()
    ended = run(options, folder, environment=temporary_folder(folder, number))
    if ended.code:
        return f"exit code {ended.code}: {ended.errors[-300:]}"
    return same_run(folder / "whole", directory)


def kill_and_resume_stock(folder: Path, seconds: float, number: int) -> str:
    """The same for the control, resumed with Lightning's own `ckpt_path="last"`."""
    chance, directory = random.Random(number), folder / f"stock-{number}"
    options = [f"folder={directory}", f"max_steps={STEPS}"]
    environment = temporary_folder(folder, number)
    process = Process(options, folder, script=STOCK, environment=environment)
    time.sleep(chance.uniform(0.2, seconds))
    process.kill()
    process.wait()
    ended = run([*options, "resume=last"], folder, script=STOCK, environment=environment)
    if ended.code:
        return f"exit code {ended.code}"
    wanted = torch.load(folder / "stock-whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    found = torch.load(directory / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return "" if all(torch.equal(wanted[k], found[k]) for k in wanted) else "weights"


def summed(differences: list[str]) -> Result:
    """Trials in which nothing differed; the note says what did in the others."""
    bad = sorted({d for d in differences if d})
    return Result(sum(not d for d in differences), len(differences), "; ".join(bad)[:300])


def killed(folder: Path, trials: int, controls: int) -> Iterator[Row]:
    """SIGKILL at random moments, resumed until done: the run equals one that was left alone."""
    whole = run([*TINY, f"trainer.max_steps={STEPS}", f"paths.run_dir={folder / 'whole'}"], folder)
    assert whole.code == 0, whole.errors
    ours = summed(parallel(partial(kill_and_resume, folder, whole.seconds), range(trials)))
    stock = None
    if controls:
        whole = run([f"folder={folder / 'stock-whole'}", f"max_steps={STEPS}"], folder, script=STOCK)
        assert whole.code == 0, whole.errors
        stock = summed(parallel(partial(kill_and_resume_stock, folder, whole.seconds), range(controls)))
    yield Row(
        "SIGKILL at a random moment, then resumed: weights, optimizer, every metric row, samples identical",
        ours,
        "Lightning, ckpt_path='last'",
        stock,
    )


def save_again_and_again(stock: bool, folder: Path, ready: Path, environment: dict[str, str]) -> None:
    """Save 24 MB until killed."""
    os.environ |= environment
    tempfile.tempdir = None  # look at TMPDIR again
    state = {"weights": torch.randn(6_000_000)}
    from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

    from minigpt.runs.checkpoints import AtomicCheckpointIO, link

    files = TorchCheckpointIO() if stock else AtomicCheckpointIO()
    for step in range(10_000):
        if stock:
            files.save_checkpoint(state, folder / "last.ckpt")
        else:
            files.save_checkpoint(state, folder / f"step_{step}.ckpt")
            link(folder / f"step_{step}.ckpt", folder / "last.ckpt")
            (folder / f"step_{step - 2}.ckpt").unlink(missing_ok=True)
        ready.touch()


def kill_while_writing(folder: Path, stock: bool, number: int) -> str:
    """What is wrong with the newest checkpoint after a kill in the middle of a save."""
    from minigpt.runs.checkpoints import newest_sound

    place = folder / f"writing-{stock}-{number}"
    place.mkdir()
    ready, environment = folder / f"ready-{stock}-{number}", temporary_folder(folder, number)
    pid = os.fork()
    if pid == 0:
        try:
            save_again_and_again(stock, place, ready, environment)
        finally:
            os._exit(1)
    while not ready.exists():
        time.sleep(0.002)
    time.sleep(random.Random(number).uniform(0.02, 0.3))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        if not stock and newest_sound(place) is None:
            return "no sound checkpoint"
        torch.load(place / "last.ckpt", weights_only=True)
    except Exception as error:
        return type(error).__name__
    finally:
        shutil.rmtree(place)
    return ""


def writing(folder: Path, trials: int, controls: int) -> Iterator[Row]:
    """SIGKILL in the middle of saves of 24 MB."""
    ours = summed(parallel(partial(kill_while_writing, folder, False), range(trials)))
    stock = summed(parallel(partial(kill_while_writing, folder, True), range(controls))) if controls else None
    yield Row(
        "SIGKILL while 24 MB are written, TMPDIR on the same and on another disk: last.ckpt loads",
        ours,
        "Lightning's TorchCheckpointIO",
        stock,
    )


def damage(whole: bytes, number: int) -> bytes:
    """The first twenty cut, the others with one bit flipped."""
    chance = random.Random(number)
    if number < 20:
        return whole[: chance.randrange(len(whole))]
    broken = bytearray(whole)
    broken[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    return bytes(broken)


def recover(folder: Path, number: int) -> str:
    """A run whose newest checkpoint was damaged, resumed: it must find that out and end as the whole one."""
    directory = folder / f"damaged-{number}"
    shutil.copytree(folder / "half", directory, copy_function=shutil.copy2)
    newest = directory / "checkpoints" / f"step_{STEPS - 2}.ckpt"
    content = newest.read_bytes()
    newest.unlink()
    newest.write_bytes(damage(content, number))
    options = [f"resume={directory}", f"trainer.max_steps={STEPS}", "resume_anyway=true"]
    ended = run(options, folder)
    wrong = (
        same_run(folder / "whole", directory) if ended.code == 0 else f"exit code {ended.code}: {ended.errors[-300:]}"
    )
    if not wrong and "is damaged: set aside" not in ended.errors:
        wrong = "not noticed"
    shutil.rmtree(directory)
    return wrong


def damaged(folder: Path, trials: int, controls: int) -> Iterator[Row]:
    """Truncated and bit-flipped checkpoints: detected, and the run recovered from the one before."""
    if not (folder / "whole").is_dir():
        run([*TINY, f"trainer.max_steps={STEPS}", f"paths.run_dir={folder / 'whole'}"], folder)
    half = Process([*TINY, f"trainer.max_steps={STEPS}", f"paths.run_dir={folder / 'half'}"], folder, before=stop_early)
    assert half.wait().code == 143
    ours = summed(parallel(partial(recover, folder), range(trials)))
    stock = None
    if controls:
        path = folder / "stock.ckpt"
        from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

        TorchCheckpointIO().save_checkpoint(torch.load(folder / "whole/checkpoints/last.ckpt", weights_only=True), path)
        content, found = path.read_bytes(), []
        for number in range(controls):
            path.write_bytes(damage(content, number))
            try:
                TorchCheckpointIO().load_checkpoint(path)
                found.append("loaded without a word")
            except Exception:
                found.append("")
        stock = summed(found)
    yield Row(
        "checkpoint cut (20) or one bit flipped: detected, and the run recovered from the one before",
        ours,
        "Lightning's TorchCheckpointIO: detected at all",
        stock,
    )


def stop_early() -> None:
    """Make this process be told to stop two steps before its end."""
    from minigpt.training.callbacks.graceful_stop import GracefulStop

    def at_step(self, trainer, *rest, true=GracefulStop.on_train_batch_end) -> None:
        if trainer.global_step == STEPS - 2 and self.received is None:
            self.received = signal.SIGTERM
        true(self, trainer, *rest)

    GracefulStop.on_train_batch_end = at_step


def clock(folder: Path, controls: int) -> Iterator[Row]:
    """An old checkpoint that seems to be of 2035."""
    directory = folder / "clock"
    options = [*TINY, "trainer.max_steps=8", f"paths.run_dir={directory}", "callbacks.checkpoints.keep_last=9"]
    assert run(options, folder).code == 0
    os.utime(directory / "checkpoints/step_2.ckpt", (2.05e9, 2.05e9))
    ended = run([f"resume={directory}", "trainer.max_steps=10", "resume_anyway=true"], folder)
    ours = Result(int("resuming after step 8" in ended.output), 1)
    stock = None
    if controls:
        place = folder / "clock-stock"
        assert run([f"folder={place}", "max_steps=8"], folder, script=STOCK).code == 0
        (place / "checkpoints/last.ckpt").unlink()
        old = next((place / "checkpoints").glob("*step=2.ckpt"))
        old.rename(place / "checkpoints/last-v1.ckpt")
        newest = next((place / "checkpoints").glob("*step=8.ckpt"))
        newest.rename(place / "checkpoints/last.ckpt")
        os.utime(place / "checkpoints/last-v1.ckpt", (2.05e9, 2.05e9))
        seen = place / "resumed"
        run([f"folder={place}", "max_steps=9", "resume=last"], folder, script=STOCK, before=partial(note_step, seen))
        stock = Result(int(seen.is_file() and seen.read_text() == "8"), 1, f"went on after step {seen.read_text()}")
    yield Row("an old checkpoint touched to the year 2035: the highest step is resumed", ours, "Lightning", stock)


def note_step(path: Path) -> None:
    """Write down which step a stock run starts at."""
    import lightning

    true = lightning.LightningModule.on_train_start

    def on_train_start(self) -> None:
        path.write_text(str(self.global_step))
        true(self)

    lightning.LightningModule.on_train_start = on_train_start


def devices(folder: Path, trials: int, controls: int) -> Iterator[Row]:
    """Two devices: a killed and resumed run equals a whole one; the rows do not depend on the number of devices."""
    import json
    import subprocess
    import sys

    from benchmarks.faults.trial import TRAIN

    environment = os.environ | {"MINIGPT_DATA_DIR": "data", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    common = [*TINY, "trainer.devices=2", "trainer.max_steps=16"]
    whole = [sys.executable, str(TRAIN), *common, f"paths.run_dir={folder / 'two-whole'}"]
    done = subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    differences = []
    for number in range(trials):
        directory = folder / f"two-{number}"
        command = [sys.executable, str(TRAIN), *common, "resume=auto", f"paths.run_dir={directory}"]
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=-3, stderr=-3) as process:
            while not list(directory.glob("checkpoints/step_*.ckpt")) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(random.Random(number).uniform(0, 0.4))
            process.kill()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        differences.append(done.stderr[-300:] if done.returncode else same_run(folder / "two-whole", directory))
    # From two devices to one and back: the same rows, the same losses but for rounding.
    directory = folder / "changing"
    for count, steps in ((1, 6), (2, 12), (1, 16)):
        how = [f"resume={directory}"] if directory.is_dir() else [*TINY, f"paths.run_dir={directory}"]
        command = [sys.executable, str(TRAIN), *how, f"trainer.devices={count}", f"trainer.max_steps={steps}"]
        command += ["resume_anyway=true"] * (count == 2 or steps == 16)
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    summary = json.loads((directory / "summary.json").read_text())
    steps = [row[0] for row in metric_rows(directory) if row[1]]
    tokens = [row[-1] for row in metric_rows(directory) if row[1]] == [
        row[-1] for row in metric_rows(folder / "two-whole") if row[1]
    ]
    kept = summary["steps"] == 16 and steps == [str(n) for n in range(1, 17)] and tokens
    ours = summed([*differences, "" if kept else "rows after 1, 2, 1 devices"])
    stock = None
    if controls:
        place = folder / "stock-two"
        command = [sys.executable, str(STOCK), "devices=2", "max_steps=16"]
        subprocess.run([*command, f"folder={place}-whole"], env=environment, capture_output=True, check=True)
        subprocess.run([*command, f"folder={place}", "max_steps=8"], env=environment, capture_output=True, check=True)
        again = [*command, f"folder={place}", "resume=last"]
        subprocess.run(again, env=environment, capture_output=True, check=True)
        paths = (Path(f"{place}{end}/checkpoints/last.ckpt") for end in ("-whole", ""))
        one, two = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
        stock = Result(int(all(torch.equal(one[k], two[k]) for k in one)), 1, "other weights after a resume")
    fault = "two devices: killed and resumed, the same to the bit; resumed on 1, 2, 1 devices without a gap"
    yield Row(fault, ours, "Lightning", stock)
