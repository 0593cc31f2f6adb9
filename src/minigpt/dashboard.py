"""`make dashboard`: the losses of the newest runs side by side, in the terminal, by `wandb leet`.

leet names a run by its folder, shows charts by their names in alphabetical order, and selects one run; no option of it
changes that. It is given links to the runs' files in folders with the runs' names, and the first keys are typed here.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from minigpt.runs.commands import program
from minigpt.runs.summary import read_summary
from minigpt.runs.untrusted import UntrustedFileError

NEWEST = 20  # runs; each is read whole
RUN_FOLDER = re.compile(r"(?:offline-)?run-(\d{8}_\d{6})-(\w+)", re.ASCII)
WORD = re.compile(r"\b\w+=(?=[a-z])(?!true|false|null)")  # `muon lr=0.01` says as much as `optimizer=muon lr=0.01`
HELP = """\
keys: n, N further charts   ctrl+l all charts   / choose charts   space (un)select a run
      enter one run alone   ] its configuration   c, r columns, rows   h help   q quit"""
# What is typed when a text is on the screen: show the charts of losses, select all runs, confirm.
KEYS = [(b"Metrics", b"/loss\r\x01"), (b"to confirm", b"y")]
LAYOUT = {  # of the first time; leet keeps changes there
    "startup_mode": "workspace_latest",
    "workspace_metrics_grid": {"rows": 2, "cols": 1},
    "workspace_layout": {"left_sidebar": 0.5},
    "workspace_overview_visible": False,
}


def main(log_dir: str = "logs") -> None:
    """Show the newest runs below a folder of logs."""
    logs = Path(log_dir)
    with tempfile.TemporaryDirectory(prefix="dashboard-") as folder:
        shown = link_runs(logs, Path(folder))
        if shown == 0:
            sys.exit(f"error: no run of W&B in {logs}/wandb: train one with {program('train')}")
        if any(logs.glob("*/*/tensorboard")) or any(logs.glob("*/*/*/tensorboard")):
            print(f"TensorBoard: {Path(sys.executable).with_name('tensorboard')} --logdir {logs}")
        print(f"the newest {shown} runs of {logs}\n{HELP}", flush=True)
        os.environ["WANDB_CONFIG_DIR"] = str(write_layout(logs / "wandb/leet"))
        show([str(Path(sys.executable).with_name("wandb")), "leet", folder], type_keys())


def link_runs(logs: Path, folder: Path) -> int:
    """Link the files of the newest runs into folders that have the runs' names; return how many there are."""
    found = [(match, path) for path in logs.glob("wandb/wandb/*run-*") if (match := RUN_FOLDER.fullmatch(path.name))]
    newest = sorted(found, key=lambda item: item[0][1])[-NEWEST:]
    names = run_names(logs)
    for match, path in newest:
        time, run_id = match.groups()
        name = re.sub(r"[^\w .,=+-]", "_", WORD.sub("", names.get(run_id, run_id)))
        if (folder / f"run-{time}-{name}").exists():
            name += f" {run_id}"
        (folder / f"run-{time}-{name}").mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (folder / f"run-{time}-{name}" / f"run-{name}.wandb").symlink_to((path / f"run-{run_id}.wandb").absolute())
    return len(newest)


def run_names(logs: Path) -> dict[str, str]:
    """The names of runs by their ids in W&B, as summary.json has them."""
    names = {}
    for path in (*logs.glob("*/*/summary.json"), *logs.glob("sweeps/*/*/summary.json")):
        with contextlib.suppress(UntrustedFileError, OSError):
            summary = read_summary(path.parent) or {}
            if summary.get("wandb_id") and summary.get("wandb_name"):
                names[summary["wandb_id"]] = summary["wandb_name"]
    return names


def write_layout(folder: Path) -> Path:
    """Return a folder with leet's configuration: ours, unless it has one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "wandb-leet.json"
    if not path.exists():
        path.write_text(json.dumps(LAYOUT, indent=2), encoding="utf-8")
    return folder


def type_keys() -> Callable[[bytes], bytes]:
    """A function of all that has been printed so far, piece by piece, that returns what is typed now."""
    waiting, seen = list(KEYS), b""

    def typed(output: bytes) -> bytes:
        nonlocal seen
        seen = (seen + output)[-(1 << 16) :]
        if not waiting or waiting[0][0] not in seen:
            return b""
        seen = b""
        return waiting.pop(0)[1]

    return typed


def show(command: list[str], typed: Callable[[bytes], bytes]) -> None:
    """Run a program on this terminal, and type what `typed` returns for each piece of its output."""
    if sys.platform == "win32":  # which has no pseudo-terminals of this kind
        subprocess.run(command, check=False)
        return
    import pty
    import termios

    terminal: list[int] = []

    def resize(*_: object) -> None:
        rows, columns = shutil.get_terminal_size()[::-1]
        for number in terminal:
            termios.tcsetwinsize(number, (rows, columns))

    def read(number: int) -> bytes:
        if not terminal:
            terminal.append(number)
            resize()
        output = os.read(number, 1 << 16)
        os.write(number, typed(output))
        return output

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        pty.spawn(command, read)
    finally:
        signal.signal(signal.SIGWINCH, before)


if __name__ == "__main__":
    main(*sys.argv[1:])
