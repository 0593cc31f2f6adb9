"""The tests of a mutant: in a copy of the tree, in forked processes, the nearest tests first."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from benchmarks.mutants.generate import PACKAGES, ROOT, Mutant

MEMORY_BYTES = 12 << 30  # of data; a mutant may ask for more without end
OWN = ("minigpt", "benchmarks", "tests", "hydra_plugins")  # packages of the tree itself


@dataclass
class Outcome:
    """What the tests said of a mutant.

    Attributes:
        status: survived, killed, or timeout, which is a kill too.
        by: the test that failed.
        seconds: of all its tests.
    """

    status: str
    by: str = ""
    seconds: float = 0.0


@dataclass(eq=False)  # pytest needs a hash
class Recorder:
    """A pytest plug-in that keeps the first failure and the time of each file."""

    failed: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a phase of a test."""
        file = report.nodeid.partition("::")[0]
        self.seconds[file] = self.seconds.get(file, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep a file that cannot be imported."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


def copy_tree(folder: Path) -> None:
    """Copy what is in the checkout: its files but for those that git ignores, and a link to its environment."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and name != ".venv":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    for name in ("pyproject.toml", "constraints.txt"):  # older than the environment: make must install nothing there
        os.utime(folder / name, (0, 0))


def stages(root: Path, file: str) -> Iterator[list[str]]:
    """The test files of the default suite, the nearest to a source file first.

    First those of its package that import its module, then the others of its package, the other packages, and the
    commands.
    """
    module = "minigpt." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    package, (parent, _, name) = file.split("/")[0], module.rpartition(".")
    imported = rf"{re.escape(module)}\b|from {re.escape(parent)} import .*\b{re.escape(name)}\b"
    groups: dict[int, list[str]] = {0: [], 1: [], 2: [], 3: []}
    for path in sorted((root / "tests").rglob("test_*.py")):
        if path.stem == "test_mutants":  # it looks for the text of the bugs
            continue
        folder = path.relative_to(root / "tests").parts[0]
        if folder not in PACKAGES:
            number = 3
        elif folder != package:
            number = 2
        else:
            near = re.search(imported, path.read_text()) or path.stem == f"test_{name}"
            number = 0 if near else 1
        groups[number].append(str(path.relative_to(root)))
    mirror = f"tests/{package}/test_{name}.py"
    groups[0].sort(key=lambda name: name != mirror)
    yield from groups.values()


def try_mutant(mutant: Mutant, template: Path, seconds: dict[str, float], *, near: bool) -> Outcome:
    """Run the tests on a mutant until one fails.

    Args:
        mutant: the bug.
        template: a copy of the tree that has passed all tests.
        seconds: how long each test file took there; five times as long is too long.
        near: run only the nearest of the `stages`; else the others, which it has survived.
    """
    begin, folder = time.monotonic(), template.parent / f"mutant-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder / "tree", symlinks=True)
    (folder / "tree/src/minigpt" / mutant.file).write_text(mutant.source)
    outcome = Outcome("survived")
    groups = list(stages(folder / "tree", mutant.file))
    first = next(number for number, group in enumerate(groups) if group)
    for files in groups[first : first + 1] if near else groups[first + 1 :]:
        limit = 60 + 5 * sum(seconds.get(file, 10.0) for file in files)
        outcome = run_tests(folder, files, limit)[0]
        if outcome.status == "killed" and files == groups[-1]:  # some have time limits: a failure must repeat
            outcome = run_tests(folder, [outcome.by.partition("::")[0]], limit)[0]
        if outcome.status != "survived":
            break
    shutil.rmtree(folder, ignore_errors=True)
    outcome.seconds = round(time.monotonic() - begin, 1)
    return outcome


def run_tests(folder: Path, files: list[str], limit: float) -> tuple[Outcome, dict[str, float]]:
    """Run test files of folder/tree in a forked process.

    Returns:
        The outcome, and the seconds of each file.
    """
    if not files:
        return Outcome("survived"), {}
    result = folder / "result"
    result.unlink(missing_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            become_pytest(folder, files)
        finally:
            os._exit(0)
    deadline, ended = time.monotonic() + limit, 0
    while not ended and time.monotonic() < deadline:
        time.sleep(0.02)
        ended, _ = os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # with the processes that it has begun
    if not ended:
        os.waitpid(pid, 0)
        return Outcome("timeout", f"after {limit:.0f} s in {files[0]} or a file after it"), {}
    if not result.exists():
        return Outcome("killed", f"the process of the tests ended, in {files[0]} or a file after it"), {}
    code, failed, seconds = json.loads(result.read_text())
    lines = (folder / "output.txt").read_text(errors="replace").splitlines()
    return Outcome("survived" if code in (0, 5) else "killed", failed or lines[-1]), seconds  # 5: no tests


def become_pytest(folder: Path, files: list[str]) -> None:
    """In a forked process: run pytest on folder/tree, of which nothing has been imported yet."""
    os.setpgid(0, 0)
    with (folder / "output.txt").open("ab") as output, Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    tree = folder / "tree"
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree / "src")
    for name in [m for m in sys.modules if m.split(".")[0] in OWN]:
        del sys.modules[name]
    sys.path[:] = [p for p in sys.path if p and not (Path(p) / "minigpt").exists() and Path(p) != ROOT]
    recorder = Recorder()
    options = ["-x", "-n", "0", "-p", "no:cacheprovider", f"--basetemp={folder / 'tmp'}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *files]  # of plug-ins that are imported already
    code = pytest.main(options, plugins=[recorder])
    (folder / "result").write_text(json.dumps([code, recorder.failed, recorder.seconds]))


def preload() -> Any:
    """Import the libraries of the tests and of the source, and nothing of the source itself."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import hydra
    import lightning.pytorch.callbacks
    import lightning.pytorch.loggers
    import tokenizers
    import torch._dynamo
    import torchmetrics.text
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.llama.modeling_llama
    import transformers.models.mixtral.modeling_mixtral
    import wandb

    torch.set_num_threads(1)
    return hydra, lightning, tokenizers, torchmetrics, transformers, wandb
