"""Signals, numbers that go wrong, memory that runs out, processes that die or hang."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.faults.killed import STOCK
from benchmarks.faults.trial import ROOT, TINY, TRAIN, Process, Result, Row, descendants, is_alive, run

LONG = ["trainer.max_steps=100000", "trainer.val_every_n_steps=100000", "callbacks.checkpoints.every_n_steps=50000"]


def summary_of(directory: Path) -> dict[str, Any]:
    """A run's summary; empty when it left none."""
    try:
        return json.loads((directory / "summary.json").read_text())
    except (OSError, ValueError):
        return {}


def has_rows(path: Path) -> bool:
    """Whether a run has logged a few steps."""
    return path.is_file() and path.read_bytes().count(b"\n") > 4


def signals(folder: Path, controls: int) -> Iterator[Row]:
    """SIGTERM and SIGINT: the step is finished and saved."""
    good, slowest, wrong = 0, 0.0, []
    for number in (signal.SIGTERM, signal.SIGINT) * 2:
        directory = folder / f"signal-{number}-{good}"
        process = Process([*TINY, *LONG, f"paths.run_dir={directory}"], folder)
        process.until(
            lambda d=directory: (d / "metrics.csv").is_file() and d.joinpath("metrics.csv").stat().st_size > 900
        )
        begun = time.monotonic()
        os.kill(process.pid, number)
        ended = process.wait(30)
        slowest = max(slowest, time.monotonic() - begun)
        summary = summary_of(directory)
        saved = directory / "checkpoints" / f"step_{summary.get('steps')}.ckpt"
        if ended.code == 128 + number and saved.is_file() and summary["status"] == "interrupted":
            good += 1
        else:
            wrong.append(f"{number}: exit code {ended.code}, {ended.errors[-200:]}")
    good += (again := second_interrupt(folder)) < 5
    ours = Result(
        good, 5, "; ".join(wrong) or f"slowest exit {slowest:.2f} s after the signal, {again:.2f} s if repeated"
    )
    stock = None
    if controls:
        codes, kept = [], 0
        for number in (signal.SIGTERM, signal.SIGINT):
            place = folder / f"stock-signal-{number}"
            process = Process([f"folder={place}", "max_steps=100000", "every=50000"], folder, script=STOCK)
            process.until(lambda p=place: (p / "csv/metrics.csv").is_file())
            time.sleep(0.5)
            os.kill(process.pid, number)
            codes.append(process.wait(30).code)
            kept += bool(list(place.rglob("*.ckpt")))
        good = sum(code == wanted for code, wanted in zip(codes, (143, 130), strict=True))
        stock = Result(good if kept == 2 else 0, 2, f"exit codes {codes}, {kept} checkpoints")
    fault = "SIGTERM, SIGINT: the step finished and saved, exit code 143, 130; SIGINT again: at once"
    yield Row(fault, ours, "Lightning", stock)


def second_interrupt(folder: Path) -> float:
    """Seconds from a second SIGINT, in the middle of a step of eight seconds, to the end; infinite without 130."""
    directory = folder / "twice"
    process = Process([*TINY, *LONG, f"paths.run_dir={directory}"], folder, before=slow_steps)
    process.until(lambda: (directory / "metrics.csv").is_file())
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    ended = process.wait(30)
    seconds = time.monotonic() - begun
    return seconds if ended.code == 130 else float("inf")


def slow_steps() -> None:
    """Make every step take eight seconds, after the first."""
    from minigpt.training.module import LanguageModel

    def training_step(self, batch, index, true=LanguageModel.training_step):
        if index > 1:
            time.sleep(8)
        return true(self, batch, index)

    LanguageModel.training_step = training_step


def at_step(step: int, factor: float) -> Any:
    """Multiply the loss of one step."""

    def before() -> None:
        from minigpt.training.module import LanguageModel

        def training_step(self, batch, index, true=LanguageModel.training_step):
            output = true(self, batch, index)
            return output | {"loss": output["loss"] * (factor if self.global_step + 1 == step else 1.0)}

        LanguageModel.training_step = training_step

    return before


def at_stock_step(step: int, factor: float) -> Any:
    """The same for the control, whose class is made when its script runs."""

    def before() -> None:
        import torch.nn.functional as F

        count = [0]

        def cross_entropy(*args, true=F.cross_entropy, **kwargs):
            count[0] += 1
            return true(*args, **kwargs) * (factor if count[0] == step else 1.0)

        F.cross_entropy = cross_entropy

    return before


def numbers(folder: Path, controls: int) -> Iterator[Row]:
    """A loss that is not a number, and one that is a hundred times too large."""
    told = []
    for name, factor in (("nan", float("nan")), ("inf", float("inf"))):
        directory = folder / name
        ended = run([*TINY, f"paths.run_dir={directory}"], folder, before=at_step(8, factor))
        line = ended.is_one_line and re.search(
            r"gradient norm is (nan|inf) at step 8, with a learning rate of", ended.errors
        )
        state = torch.load(directory / "checkpoints/last.ckpt", weights_only=True)
        finite = all(t.isfinite().all() for t in state["state_dict"].values()) and state["global_step"] <= 7
        told.append("" if ended.code == 1 and line and finite else f"{ended.code}: {ended.errors[-200:]}")
    bad = [t for t in told if t]
    ours, stock = Result(2 - len(bad), 2, "; ".join(bad)), None
    if controls:
        place = folder / "stock-nan"
        ended = run([f"folder={place}", "max_steps=12"], folder, script=STOCK, before=at_stock_step(8, float("nan")))
        state = torch.load(place / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        finite = all(t.isfinite().all() for t in state.values())
        stock = Result(
            int(ended.code != 0 and finite), 1, f"exit code {ended.code}, {'finite' if finite else 'NaN'} weights"
        )
    what = "loss that is no number: stopped before the update; step, learning rate, norm named; checkpoint finite"
    yield Row(what, ours, "Lightning", stock)

    directory = folder / "spike"
    options = [*TINY, "callbacks=skip_spikes", "+callbacks.checkpoints.keep_last=50", "trainer.max_steps=40"]
    options = [o.replace("+callbacks.checkpoints", "callbacks.checkpoints") for o in options]
    options += ["callbacks.skip_spikes.window=16", f"paths.run_dir={directory}"]
    ended = run(options, folder, before=at_step(30, 100.0))
    log = (directory / "train.log").read_text()
    before, after = (weights_at(directory, step) for step in (28, 30))
    plain = run([*options[:-1], f"paths.run_dir={folder / 'no-spike'}"], folder)
    assert plain.code == 0
    # Step 29 moved the weights and step 30 did not: 28 -> 30 differs, but only by what one step does.
    logged = "skipped step 30" in log and "skipped step 30" in ended.output and log.count("skipped step") == 1
    counted = "optim/skipped_steps" in (directory / "metrics.csv").read_text().splitlines()[0]
    moved = torch.dist(before, after).item()
    twice = torch.dist(weights_at(folder / "no-spike", 28), weights_at(folder / "no-spike", 30)).item()
    ok = ended.code == 0 and logged and counted and moved < 0.75 * twice
    ours = Result(int(ok), 1, f"the weights moved {moved / twice:.2f} times as far as without the spike")
    stock = None
    if controls:
        place = folder / "stock-spike"
        options = [f"folder={place}", "max_steps=12", "every=1"]
        assert run(options, folder, script=STOCK, before=at_stock_step(10, 100.0)).code == 0
        paths = (next(place.glob(f"checkpoints/step={step}.ckpt")) for step in (9, 10))
        one, two = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
        left_out = all(torch.equal(one[k], two[k]) for k in one)
        stock = Result(int(left_out), 1, "left out" if left_out else "the step was taken")
    yield Row("loss 100 times too large: the step left out, counted and logged", ours, "Lightning", stock)


def weights_at(directory: Path, step: int) -> torch.Tensor:
    """All weights of a checkpoint in one vector."""
    state = torch.load(directory / f"checkpoints/step_{step}.ckpt", weights_only=True)["state_dict"]
    return torch.cat([t.flatten() for t in state.values()])


def memory(folder: Path, controls: int) -> Iterator[Row]:
    """More memory asked for than there is."""

    def limit() -> None:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), used + (600 << 20)))

    options = [*TINY, "data.batch_size=30000", "model.block_size=64", "trainer.accumulate_grad_batches=1"]
    ended = run([*options, f"paths.run_dir={folder / 'memory'}"], folder, before=limit)
    ok = ended.code == 1 and ended.is_one_line and "lower data.batch_size" in ended.errors
    refused = run([*TINY, "model.dim=2000000", "model.num_heads=2"], folder)
    early = refused.code == 2 and refused.is_one_line and "needs at least" in refused.errors
    note = "" if ok and early else f"{ended.code} {ended.errors[-200:]} | {refused.code} {refused.errors[-200:]}"
    stock = None
    if controls:
        ended = run([f"folder={folder / 'stock-memory'}", "dim=200000"], folder, script=STOCK, before=limit)
        stock = Result(int(ended.is_one_line), 1, f"exit code {ended.code}, {len(ended.errors.splitlines())} lines")
    yield Row("out of memory: one line of advice", Result(ok + early, 2, note), "Lightning", stock)


def preemption(folder: Path, controls: int) -> Iterator[Row]:
    """SIGUSR1 in a Slurm job: saved, requeued, and the same command goes on in the same run directory."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/requeued\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
    slurm |= {
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS_PER_NODE": "1",
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    place = folder / "slurm"
    # A scheduler sends the same command again, which cannot know the step: it ends at a length that it names.
    options = [*TINY, "trainer.max_steps=400", "trainer.val_every_n_steps=400", f"paths.log_dir={place}"]
    options += ["callbacks.checkpoints.every_n_steps=400"]
    process = Process(options, folder, environment=slurm)
    process.until(lambda: list(place.glob("runs/*/metrics.csv")))
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGUSR1)
    first = process.wait()
    requeued = (folder / "requeued").read_text() if (folder / "requeued").exists() else ""
    second = run(options, folder, environment=slurm | {"SLURM_RESTART_COUNT": "1"})
    runs = list(place.glob("runs/*"))
    ok = first.code == 138 and requeued == "requeue 4242\n" and second.code == 0 and len(runs) == 1
    ok = ok and "resuming after step" in second.output and summary_of(runs[0])["steps"] == 400
    note = (
        "" if ok else f"{first.code} {first.errors[-200:]} {requeued} {second.code} {second.errors[-200:]} {len(runs)}"
    )
    stock = None
    if controls:
        at = folder / "stock-slurm"
        process = Process(
            [f"folder={at}", "max_steps=100000", "every=50000"], folder, script=STOCK, environment={"SLURM_JOB_ID": "1"}
        )
        process.until(lambda: (at / "csv/metrics.csv").is_file())
        os.kill(process.pid, signal.SIGUSR1)
        ended = process.wait(30)
        stock = Result(int(bool(list(at.rglob("*.ckpt")))), 1, f"exit code {ended.code}, nothing saved")
    what = "Slurm preempts (SIGUSR1): saved, requeued; the same command goes on in the same run directory"
    yield Row(what, Result(int(ok), 1, note), "Lightning without srun", stock)


def ranks(folder: Path, controls: int) -> Iterator[Row]:
    """One of two processes dies or hangs: the other one ends, and nobody is left."""
    environment = os.environ | {"MINIGPT_DATA_DIR": "data", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    told, slowest, good = [], 0.0, 0
    cases = [
        ("second", signal.SIGKILL),
        ("second", signal.SIGSTOP),
        ("first", signal.SIGKILL),
        ("first", signal.SIGSTOP),
    ]
    for victim, number in cases:
        directory = folder / f"rank-{victim}-{number}"
        command = [sys.executable, str(TRAIN), *TINY, *LONG, "trainer.devices=2", "trainer.timeout_s=5"]
        left, code, seconds = one_rank(
            command + [f"paths.run_dir={directory}"], folder, environment, directory / "metrics.csv", victim, number
        )
        slowest = max(slowest, seconds)
        if left or code == 0 or seconds > 40:
            told.append(f"{victim} {number}: {left} left, exit code {code}, {seconds:.0f} s")
        else:
            good += 1
    ours = Result(good, 4, "; ".join(told) or f"time-out 5 s; slowest end after {slowest:.0f} s, 0 processes left")
    stock = None
    if controls:
        place = folder / "stock-rank"
        command = [sys.executable, str(ROOT / "benchmarks/faults/stock.py"), f"folder={place}", "max_steps=100000"]
        command += ["every=50000", "devices=2", "timeout_s=5"]
        left, code, seconds = one_rank(
            command, folder, environment, place / "csv/metrics.csv", "second", signal.SIGSTOP
        )
        stock = Result(int(not left), 1, f"{left} left, exit code {code}")
    yield Row("of two processes one dies or hangs: the other ends, nobody is left", ours, "Lightning, one hangs", stock)


def one_rank(
    command: list[str], folder: Path, environment: dict[str, str], begun: Path, victim: str, number: int
) -> tuple[int, int, float]:
    """Stop one of two processes; (how many are left, exit code, seconds)."""
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=-3, stderr=-3)
    while not begun.is_file() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    family = [process.pid, *descendants(process.pid)]
    target = process.pid if victim == "first" else next(p for p in family[1:] if "LOCAL_RANK=1" in environment_of(p))
    os.kill(target, number)
    start = time.monotonic()
    try:
        code = process.wait(60)
    except subprocess.TimeoutExpired:
        code = 0
    seconds = time.monotonic() - start
    time.sleep(1.0)
    left = [p for p in family if p != process.pid and is_alive(p)]
    for pid in [*left, *([process.pid] if process.poll() is None else [])]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return len(left) + (code == 0), code, seconds


def environment_of(pid: int) -> str:
    """The environment that a process was started with."""
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return ""
