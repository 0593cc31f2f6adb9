"""Disks that are full or may not be written, and token caches that rot."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.faults.killed import STOCK
from benchmarks.faults.trial import NOBODY, TINY, Process, Result, Row, other_disk, run, small_disk

# Checkpoints of half a megabyte, so that a disk of a few megabytes holds some.
LARGER = ["model.dim=64", "trainer.max_steps=400", "trainer.val_every_n_steps=400"]


def fill(folder: Path) -> None:
    """Take all the room that is left."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 14, 1 << 10):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def sound(folder: Path) -> list[Path]:
    """The checkpoints of a run that can be loaded."""
    from minigpt.runs.checkpoints import is_sound
    from minigpt.runs.directory import step_checkpoints

    return [path for path in step_checkpoints(folder / "checkpoints") if is_sound(path)]


def full(folder: Path, controls: int) -> Iterator[Row]:
    """A disk that fills up while a run is under way, and one that is too small to begin with."""
    with small_disk(folder / "small", 8) as disk:
        if disk is None:
            print("disk full: left out, since mounting a small file system needs more rights", flush=True)
            return
        told = []
        for number in range(3):
            directory = disk / f"run{number}"
            process = Process([*TINY, *LARGER, f"paths.run_dir={directory}"], folder)
            process.until(lambda d=directory: len(sound(d)) > 1)
            fill(disk)
            ended = process.wait()
            told.append(
                "" if ended.code == 1 and ended.is_one_line and str(disk) in ended.errors and sound(directory)
                else f"exit code {ended.code}: {ended.errors[-300:]}"
            )  # fmt: skip
            (disk / "filler").unlink()
            resumed = run([f"resume={directory}", "trainer.max_steps=20", "resume_anyway=true"], folder)
            if resumed.code not in (0, 2):
                told.append(f"not resumed: {resumed.errors[-200:]}")
            shutil.rmtree(directory)
        fill(disk)
        ended = run([*TINY, *LARGER, "model.dim=256", f"paths.log_dir={disk}"], folder)
        begun = (disk / "runs").exists()
        refused = ended.code == 2 and ended.is_one_line and str(disk) in ended.errors and not begun
        told.append("" if refused else f"too small: {ended.code} {ended.errors[-200:]}")
    bad = [t for t in told if t]
    ours = Result(len(told) - len(bad), len(told), "; ".join(bad)[:300])
    stock = stock_full(folder) if controls else None
    fault = "disk full: one line that names the path, exit code not 0, the checkpoint before intact, resumed with room"
    yield Row(fault, ours, "Lightning: last.ckpt still loads", stock)


def stock_full(folder: Path) -> Result:
    """Whether Lightning's last.ckpt outlives a full disk."""
    with small_disk(folder / "small-stock", 2) as disk:
        assert disk is not None
        elsewhere = other_disk(folder)
        elsewhere.mkdir(exist_ok=True)
        options = [f"folder={disk}", "dim=64", "max_steps=4000", "every=1"]
        ended = run(options, folder, script=STOCK, environment={"TMPDIR": str(elsewhere)})
        try:
            torch.load(disk / "checkpoints/last.ckpt", weights_only=True)
        except Exception as error:
            return Result(0, 1, f"exit code {ended.code}, last.ckpt: {type(error).__name__}")
    return Result(1, 1)


def read_only(folder: Path, controls: int) -> Iterator[Row]:
    """A folder that may not be written: found at the start, or in the middle of a run."""
    folder.chmod(0o755)
    locked, owned = folder / "locked", folder / "owned"
    for place in (locked, owned):
        place.mkdir()
        os.chown(place, NOBODY if os.getuid() == 0 else -1, -1)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data").chmod(0o777)
    locked.chmod(0o555)
    how = {"user": NOBODY, "environment": {"MINIGPT_DATA_DIR": str(folder / "open"), "HOME": str(owned)}}
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    told = []
    ended = run([*TINY, f"paths.log_dir={locked}"], owned, **how)
    refused = ended.code == 2 and ended.is_one_line and str(locked) in ended.errors
    told.append("" if refused else f"start: {ended.code} after {ended.seconds:.1f} s {ended.errors[-200:]}")
    directory = owned / "run"
    process = Process([*TINY, "trainer.max_steps=4000", f"paths.run_dir={directory}"], owned, **how)
    process.until(lambda: len(sound(directory)) > 1)
    (directory / "checkpoints").chmod(0o555)
    ended = process.wait()
    clear = ended.code == 1 and ended.is_one_line and str(directory / "checkpoints") in ended.errors
    told.append("" if clear and sound(directory) else f"later: {ended.code} {ended.errors[-300:]}")
    bad = [t for t in told if t]
    ours = Result(len(told) - len(bad), len(told), "; ".join(bad)[:300])
    stock = None
    if controls:
        place = owned / "stock"
        (place / "checkpoints").mkdir(parents=True)
        os.chown(place, NOBODY if os.getuid() == 0 else -1, -1)
        (place / "checkpoints").chmod(0o555)
        ended = run([f"folder={place}", "max_steps=4"], owned, script=STOCK, user=NOBODY)
        stock = Result(
            int(ended.code != 0), 1, f"exit code {ended.code}, {len(list(place.rglob('*.ckpt')))} checkpoints"
        )
    yield Row("read-only folder: exit code not 0, the path named", ours, "Lightning: exit code not 0", stock)


def cache(folder: Path, controls: int) -> Iterator[Row]:
    """A byte of the token cache flipped."""
    place = folder / "cache"
    options = [*TINY, "trainer.max_steps=4"]
    first = run([*options, f"paths.run_dir={place / 'a'}"], place)
    assert first.code == 0, first.errors
    (tokens,) = (place / "data/cache").glob("*.tokens")
    good, unnoticed = 0, 0
    for number in range(8):
        content = bytearray(tokens.read_bytes())
        position = 70_000 + 97 * number if number % 2 else 3 + number
        content[position] ^= 1
        tokens.write_bytes(content)
        ended = run([*options, f"paths.run_dir={place / str(number)}"], place)
        good += ended.code == 0 and losses(place / str(number)) == losses(place / "a")
        if controls:
            path = place / "stock.bin"
            np.arange(4000, dtype=np.uint16).tofile(path)
            raw = bytearray(path.read_bytes())
            raw[number] ^= 1
            path.write_bytes(raw)
            unnoticed += bool(np.memmap(path, dtype=np.uint16, mode="r")[number // 2] != number // 2)
    stock = Result(8 - unnoticed, 8, "trained on as it is") if controls else None
    yield Row(
        "token cache with a flipped bit: built anew, same losses", Result(good, 8), "np.memmap, as in nanoGPT", stock
    )


def losses(directory: Path) -> Any:
    """The losses of a run, as text."""
    from benchmarks.faults.trial import metric_rows

    return metric_rows(directory), json.loads((directory / "summary.json").read_text())["val_loss"]
