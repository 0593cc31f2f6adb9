"""Disks that are full or not writable, and a token cache with flipped bits."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.faults.comparison import metric_records, read_summary_file
from benchmarks.faults.harness import BASELINE, NOBODY, TINY, Process, run
from benchmarks.faults.results import Result, Row, count_passed
from benchmarks.faults.system import other_disk, small_disk

# Checkpoints of half a megabyte, so that a disk of a few megabytes holds several.
LARGER = ["model.dim=64", "trainer.max_steps=400", "trainer.val_every_n_steps=400"]


def fill(folder: Path) -> None:
    """Fill the file system up."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 14, 1 << 10):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def valid_checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoints of a run that can be loaded."""
    from minigpt.runs.checkpoint_io import is_valid
    from minigpt.runs.directory import step_checkpoints

    return [path for path in step_checkpoints(run_dir / "checkpoints") if is_valid(path)]


def fill_during_run(folder: Path, disk: Path, number: int) -> Iterator[str]:
    """Fill the disk while a run is training on it, then make room and resume the run."""
    run_dir = disk / f"run{number}"
    process = Process([*TINY, *LARGER, f"paths.run_dir={run_dir}"], folder)
    process.wait_until(lambda: len(valid_checkpoints(run_dir)) > 1)
    fill(disk)
    done = process.wait()
    clear = done.exit_code == 1 and done.has_one_line_error and str(disk) in done.stderr
    yield "" if clear and valid_checkpoints(run_dir) else str(done)
    (disk / "filler").unlink()
    resumed = run([f"resume={run_dir}", "trainer.max_steps=20", "ignore_fingerprint=true"], folder)
    if resumed.exit_code not in (0, 2):
        yield f"not resumed: {resumed}"
    shutil.rmtree(run_dir)


def full(folder: Path, baselines: int) -> Iterator[Row]:
    """A disk that fills up during a run, and one that is too small from the start."""
    with small_disk(folder / "small", 8) as disk:
        if disk is None:
            print("disk full: skipped, mounting a small file system needs more privileges", flush=True)
            return
        failures = [failure for number in range(3) for failure in fill_during_run(folder, disk, number)]
        fill(disk)
        done = run([*TINY, *LARGER, "model.dim=256", f"paths.log_dir={disk}"], folder)
        refused = done.is_usage_error and str(disk) in done.stderr and not (disk / "runs").exists()
        failures.append("" if refused else f"too small: {done}")
    fault = "disk full: one-line error with the path, exit code not 0, last checkpoint intact, resumed with room"
    baseline = full_baseline(folder) if baselines else None
    yield Row(fault, count_passed(failures), "Lightning: last.ckpt still loads", baseline)


def full_baseline(folder: Path) -> Result:
    """Whether Lightning's last.ckpt survives a full disk."""
    with small_disk(folder / "small-baseline", 2) as disk:
        assert disk is not None
        elsewhere = other_disk(folder)
        elsewhere.mkdir(exist_ok=True)
        options = [f"folder={disk}", "dim=64", "max_steps=4000", "every=1"]
        done = run(options, folder, script=BASELINE, environment={"TMPDIR": str(elsewhere)})
        try:
            torch.load(disk / "checkpoints/last.ckpt", weights_only=True)
        except Exception as error:
            return Result(0, 1, f"exit code {done.exit_code}, last.ckpt: {type(error).__name__}")
    return Result(1, 1)


def make_folder(path: Path, mode: int, owner: int = -1) -> Path:
    """Create a folder with a mode, owned by `owner` if this process is root."""
    path.mkdir(parents=True)
    os.chown(path, owner if os.getuid() == 0 else -1, -1)
    path.chmod(mode)
    return path


def read_only(folder: Path, baselines: int) -> Iterator[Row]:
    """A folder that is not writable from the start, or becomes so during a run."""
    folder.chmod(0o755)
    locked, owned = make_folder(folder / "locked", 0o555, NOBODY), make_folder(folder / "owned", 0o755, NOBODY)
    data = make_folder(folder / "data", 0o777)
    arguments: dict[str, Any] = {"user": NOBODY, "environment": {"MINIGPT_DATA_DIR": str(data), "HOME": str(owned)}}
    done = run([*TINY, f"paths.log_dir={locked}"], owned, **arguments)
    failures = ["" if done.is_usage_error and str(locked) in done.stderr else f"start: {done}"]
    run_dir = owned / "run"
    process = Process([*TINY, "trainer.max_steps=4000", f"paths.run_dir={run_dir}"], owned, **arguments)
    process.wait_until(lambda: len(valid_checkpoints(run_dir)) > 1)
    (run_dir / "checkpoints").chmod(0o555)
    done = process.wait()
    clear = done.exit_code == 1 and done.has_one_line_error and str(run_dir / "checkpoints") in done.stderr
    failures.append("" if clear and valid_checkpoints(run_dir) else f"later: {done}")
    baseline = None
    if baselines:
        place = make_folder(owned / "baseline", 0o755, NOBODY)
        make_folder(place / "checkpoints", 0o555)
        done = run([f"folder={place}", "max_steps=4"], owned, script=BASELINE, user=NOBODY)
        note = f"exit code {done.exit_code}, {len(list(place.rglob('*.ckpt')))} checkpoints"
        baseline = Result(int(done.exit_code != 0), 1, note)
    fault = "read-only folder: exit code not 0, the path named"
    yield Row(fault, count_passed(failures), "Lightning: exit code not 0", baseline)


def losses(run_dir: Path) -> Any:
    """All losses of a run."""
    return metric_records(run_dir), read_summary_file(run_dir)["val_loss"]


def cache(folder: Path, baselines: int) -> Iterator[Row]:
    """A flipped bit in the token cache, in its header or in its tokens."""
    from minigpt.data.corpus import HEADER_BYTES

    place = folder / "cache"
    options = [*TINY, "trainer.max_steps=4"]
    first = run([*options, f"paths.run_dir={place / 'a'}"], place)
    assert first.exit_code == 0, first.stderr
    (tokens,) = (place / "data/cache").glob("*.tokens")
    good = 0
    for number in range(8):
        content = bytearray(tokens.read_bytes())
        content[HEADER_BYTES + 97 * number if number % 2 else 3 + number] ^= 1
        tokens.write_bytes(content)
        done = run([*options, f"paths.run_dir={place / str(number)}"], place)
        good += done.exit_code == 0 and losses(place / str(number)) == losses(place / "a")
    baseline = cache_baseline(place / "baseline.bin") if baselines else None
    fault = "token cache with a flipped bit: rebuilt, same losses"
    yield Row(fault, Result(good, 8), "np.memmap, as in nanoGPT", baseline)


def cache_baseline(path: Path) -> Result:
    """Whether np.memmap reports a flipped bit."""
    undetected = 0
    for number in range(8):
        np.arange(4000, dtype=np.uint16).tofile(path)
        content = bytearray(path.read_bytes())
        content[number] ^= 1
        path.write_bytes(content)
        undetected += bool(np.memmap(path, dtype=np.uint16, mode="r")[number // 2] != number // 2)
    return Result(8 - undetected, 8, "trained on as it is")
