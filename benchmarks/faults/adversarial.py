"""Malicious checkpoints, opened by every command."""

import contextlib
import copy
import hashlib
import io
import itertools
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.faults.concurrency import SlowText, serve
from benchmarks.faults.harness import ROOT, TINY, CompletedProcess, parallel, run
from benchmarks.faults.results import Result, Row

COMMANDS = ("train", "evaluate", "generate", "export")
TARGETS = ["os.system", "builtins.open", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen"]


class Trap:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def traps(canary: Path, url: str) -> dict[str, Trap]:
    """Objects that create the canary file or request the URL when they are unpickled."""
    import subprocess
    import urllib.request

    return {
        "os.system": Trap(os.system, f"touch {canary}"),
        "open": Trap(open, str(canary), "w"),
        "eval": Trap(eval, f"__import__('pathlib').Path({str(canary)!r}).touch()"),
        "exec": Trap(exec, f"import pathlib; pathlib.Path({str(canary)!r}).touch()"),
        "subprocess": Trap(subprocess.call, ["touch", str(canary)]),
        "urlopen": Trap(urllib.request.urlopen, url),
    }


class Corpus:
    """Malicious checkpoint files, with a valid checksum where the format can carry one.

    Args:
        folder: where to write the files; created.
        valid: a checkpoint of a run.

    Attributes:
        files: the files by name.
    """

    def __init__(self, folder: Path, valid: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.checkpoint: dict[str, Any] = torch.load(valid, weights_only=True)
        self.files: dict[str, Path] = {}

    def path(self, name: str, file_name: str) -> Path:
        """The path of a new file."""
        self.files[name] = self.folder / f"{file_name}.ckpt"
        return self.files[name]

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file with a given content."""
        self.path(name, name.replace(" ", "-")).write_bytes(content)

    def add_checkpoint(self, name: str, file_name: str, checkpoint: Any) -> None:
        """Add a file that miniGPT's own writer writes."""
        from minigpt.runs.checkpoint_io import write

        write(checkpoint, self.path(name, file_name))

    def add_metadata(self, name: str, file_name: str, change: Callable[[dict[str, Any]], Any]) -> None:
        """Add the valid checkpoint with changed metadata."""
        checkpoint = copy.deepcopy(self.checkpoint)
        change(checkpoint["minigpt"])
        self.add_checkpoint(name, file_name, checkpoint)


def add_pickles(corpus: Corpus, canary: Path, url: str) -> None:
    """Traps in parts of a checkpoint, as raw pickles, and in torch's older formats."""
    for name, trap in traps(canary, url).items():
        for key in ("state_dict", "minigpt", "callbacks", "hyper_parameters"):
            corpus.add_checkpoint(f"{name} in {key}", f"{name}-{key}", {**corpus.checkpoint, key: trap})
        corpus.add_bytes(f"raw pickle {name}", pickle.dumps(trap))
        legacy = io.BytesIO()
        torch.save({"state_dict": trap}, legacy, _use_new_zipfile_serialization=False)
        corpus.add_bytes(f"legacy format {name}", legacy.getvalue())
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo("pickle")
            info.size = len(pickle.dumps(trap))
            tar.addfile(info, io.BytesIO(pickle.dumps(trap)))
        corpus.add_bytes(f"tar {name}", archive.getvalue())


def add_targets(corpus: Corpus, canary: Path) -> None:
    """Metadata whose `_target_` is not a class of a model."""
    targets = [*TARGETS, "minigpt.runs.run.open_run", "minigpt.model.gpt.nn", "hydra.utils.instantiate"]
    for target in [*targets, "", "..", "__main__.x"]:
        node = {"_target_": target, "command": f"touch {canary}", "_args_": [str(canary), "w"]}
        file_name = f"target-{target.replace('.', '_')}"
        corpus.add_metadata(f"{target} as model", file_name, lambda m, node=node: m["model"].update(node))
        corpus.add_metadata(
            f"{target} as attention",
            f"{file_name}-attention",
            lambda m, node=node: m["model"]["attention"].update(node),
        )


def add_values(corpus: Corpus, url: str) -> None:
    """Metadata with impossible sizes, and with texts in other places."""
    sizes: dict[str, dict[str, Any]] = {
        "huge": {"dim": 10**7, "num_heads": 2},
        "no heads": {"num_heads": 0},
        "deep": {"num_layers": "x"},
    }
    for name, options in sizes.items():
        corpus.add_metadata(name, name.replace(" ", "-"), lambda m, options=options: m["model"].update(options))
    for name, text in {"escape": "../../escape.txt", "address": url, "root": "/etc/hostname"}.items():
        source = {"path": text, "sha256": "0" * 64}
        corpus.add_metadata(f"text at {text}", f"text-{name}", lambda m, source=source: m["text"].update(source))


def add_files(corpus: Corpus) -> None:
    """A zip bomb with a valid checksum, and files that are not checkpoints."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(200_000_000))
    corpus.add_bytes("zip bomb", with_checksum(bomb.getvalue()))
    for name, content in {"empty": b"", "text": b"hello", "noise": os.urandom(5000)}.items():
        corpus.add_bytes(name, content)
    corpus.add_checkpoint("a list", "list", [1, 2])


def with_checksum(archive: bytes) -> bytes:
    """A zip archive with the checksum that miniGPT's checkpoints carry."""
    body = archive[:-2] + struct.pack("<H", 64)
    return body + hashlib.sha256(body).hexdigest().encode()


def open_checkpoint(base: Path, command: str, path: Path) -> CompletedProcess:
    """Open a checkpoint with a command; `train` resumes a run whose only checkpoint it is."""
    place = base / f"{command}-{path.stem}"
    if command == "train":
        shutil.copytree(base / "good", place)
        for old in (place / "checkpoints").glob("*"):
            old.unlink()
        shutil.copy(path, place / "checkpoints/step_10.ckpt")
        return run([f"resume={place}", "ignore_fingerprint=true", "trainer.max_steps=12"], base)
    extra = {"export": [f"output={place}.safetensors"], "generate": ["max_new_tokens=5"]}
    return run([f"run={path}", *extra.get(command, [])], base, script=ROOT / f"src/{command}.py")


def try_checkpoint(folder: Path, item: tuple[str, Path | str]) -> str:
    """Open a checkpoint or a URL with a command; returns the failure, if any.

    A checkpoint of which only the text is malicious may be used by commands that need no text.
    """
    command, path = item
    if isinstance(path, str):
        extra = ["output=x.safetensors"] if command == "export" else []
        done = run([f"run={path}", *extra], folder, script=ROOT / f"src/{command}.py")
    else:
        done = open_checkpoint(folder, command, path)
    ok = done.is_usage_error
    ok = ok or (isinstance(path, Path) and path.stem.startswith("text-") and done.exit_code == 0)
    ok = ok or (command == "train" and done.exit_code in (0, 1, 2) and "Traceback" not in done.stderr)
    return "" if ok else f"{command} {path}: {done}"


def checkpoints(folder: Path, baselines: int) -> Iterator[Row]:
    """Every malicious checkpoint with every command."""
    good = folder / "good"
    assert run([*TINY, "trainer.max_steps=10", f"paths.run_dir={good}"], folder).exit_code == 0
    canary, server = folder / "canary", serve(SlowText)
    url = f"http://127.0.0.1:{server.server_port}/x.ckpt"
    corpus = Corpus(folder / "corpus", good / "checkpoints/last.ckpt")
    add_pickles(corpus, canary, url)
    add_targets(corpus, canary)
    add_values(corpus, url)
    add_files(corpus)
    before = {p for p in folder.parent.rglob("*") if folder not in p.parents}
    results = parallel(partial(try_checkpoint, folder), itertools.product(COMMANDS, corpus.files.values()))
    results += [try_checkpoint(folder, (command, url)) for command in COMMANDS[1:]]
    stray = {p for p in folder.parent.rglob("*") if folder not in p.parents} - before
    effects, failures = int(canary.exists()) + server.hits + len(stray), [r for r in results if r]
    note = f"effects: {effects}. {'; '.join(failures)[:600]}"
    ours = Result(len(results) - effects - len(failures), len(results), note)
    baseline = checkpoints_baseline(corpus, canary) if baselines else None
    server.shutdown()
    fault = f"{len(corpus.files)} malicious checkpoints and a URL with {', '.join(COMMANDS)}: no effect, one-line error"
    yield Row(fault, ours, "torch.load(weights_only=False)", baseline)


def checkpoints_baseline(corpus: Corpus, canary: Path) -> Result:
    """Load the pickles among the malicious checkpoints with torch alone."""
    paths = [path for name, path in corpus.files.items() if "open in" in name or "os.system in" in name]
    effects = 0
    for path in paths:
        canary.unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            torch.load(path, weights_only=False)
        effects += canary.exists()
    canary.unlink(missing_ok=True)
    return Result(len(paths) - effects, len(paths), f"effects: {effects}")
