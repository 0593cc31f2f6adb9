"""Run directories and checkpoints in states that miniGPT never writes, and the commands that meet them."""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import torch
import yaml
from benchmarks.faults.harness import TINY
from safetensors import safe_open
from safetensors.torch import load_file, save_file

JOB = "7"  # of Slurm, in the name of the run directory
RUN_NAME = f"2030-01-01_00-00-00_run-slurm{JOB}-0"
STEP_FILE = "checkpoints/step_10.ckpt"
EXPORTED = "exported.safetensors"
FILES = "config.yaml summary.json metrics.csv samples.md train.log .hydra/overrides.yaml .hydra checkpoints".split()
FILES += [STEP_FILE, "checkpoints/best.ckpt", "checkpoints/last.ckpt", ".summary.json", "checkpoints/.last.ckpt-link"]
TEXTS = {
    "empty": b"",
    "NUL": b"step,a\n1,\0\n",
    "not UTF-8": b"\xff\xfe\x80",
    "cut": b'{"status": "comp',
    "list": b"[]",
    "number": b"5",
    "string": b'"x"',
    "null": b"null",
    "wrong types": b'{"steps": "x", "overrides": 5, "status": [], "trainer": 3}',
    "NaN": b'{"wall_clock_s": NaN, "steps": 1e999}',
    "huge integer": b'{"steps": ' + b"9" * 4000 + b"}",
    "endless integer": b'{"steps": ' + b"9" * 100_000 + b"}",
    "deep": b"[" * 10_000 + b"]" * 10_000,
    "deep mapping": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "20 MB": b"- a: [1, 2, 3]\n" * 1_400_000,
    "aliases": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "tag": b"a: !!python/object/apply:os.system [true]\n",
    "impossible date": b"a: 2001-13-45\n",
    "key of a list": b"? [1, 2]\n: 3\n",
    "no step": b"a,b\n1,2\n",
    "text for a step": b"step,a\nx,2\n",
    "too many fields": b"step,a\n1,2,3\n",
    "10^6 columns": b"step," + b"a," * 1_000_000 + b"\n1\n2\n",
    "huge step": b"step,a\n" + b"9" * 5000 + b",1\n## Step " + b"9" * 5000 + b", validation loss 1\n",
    "samples": b"## Step -1, validation loss nan\n\n```\n",
}
VALUES: list[Any] = [None, True, -1, 0, 3, 2**40, 10**12, 2**70, 0.5, -1e30, float("inf"), float("nan"), "x", "", "\0"]
VALUES += ["/dev/zero", "${oc.env:HOME}", [], {}, [1, "x"], {"a": {"b": 1}}, {"_target_": "os.system"}, [[[[]]]]]
TENSORS: dict[str, Callable[[], Any]] = {
    "NaN": lambda: torch.full((32, 32), torch.nan),
    "another shape": lambda: torch.zeros(7),
    "a scalar": lambda: torch.tensor(1.0),
    "expanded to 4 TB": lambda: torch.zeros(1).expand(2**20, 2**20),
    "on no device": lambda: torch.empty(2**20, 2**20, device="meta"),
    "sparse": lambda: torch.zeros(32, 32).to_sparse(),
    "integers": lambda: torch.ones(32, 32, dtype=torch.int64),
    "complex": lambda: torch.ones(32, 32, dtype=torch.complex64),
}


@dataclass(frozen=True)
class State:
    """One trial: what is changed in a run directory, and the command that meets it.

    Attributes:
        command: see `options`.
        place: a file of the run, or the path of a value in its configuration or its checkpoint.
        kind: what is put there: a name, or the index of a value in `VALUES`.
    """

    command: str
    place: tuple[Any, ...]
    kind: Any

    def __str__(self) -> str:
        kind = VALUES[self.kind] if isinstance(self.kind, int) else self.kind
        return f"{self.command}: {'.'.join(map(str, self.place))} = {str(kind)[:40]!r}"


def options(command: str, place: Path, base: Path) -> tuple[str, list[str], dict[str, str]]:
    """The script, its options and its environment for a command that meets a run directory."""
    logs = f"paths.log_dir={place.parent.parent}"
    more = [logs, "trainer.max_steps=12", f"paths.data_dir={base / 'data'}"]
    slurm = {"SLURM_JOB_ID": JOB, "SLURM_RESTART_COUNT": "1"}
    match command:
        case "resume":
            return "train", [f"resume={place}", *more], {}
        case "resume latest":
            return "train", ["resume=latest", *more], {}
        case "resume auto":
            return "train", ["resume=auto", f"paths.run_dir={place}", *TINY, *more], {}
        case "requeued":
            return "train", [*TINY, *more], slurm
        case "new run":
            return "train", [*TINY, *more, f"paths.run_dir={place}"], {}
        case "export":
            return "export", [f"run={place}", logs, f"output={place.parent.parent / 'x.safetensors'}"], {}
        case "generate":
            return "generate", ["run=latest", logs, "max_new_tokens=5"], {}
        case "evaluate exported":
            return "evaluate", [f"run={place / EXPORTED}", logs, f"paths.data_dir={base / 'data'}"], {}
    return "evaluate", [f"run={place}", logs, f"paths.data_dir={base / 'data'}"], {}


def replace_file(path: Path, kind: str) -> None:
    """Put something into a file's place."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    match kind:
        case "missing":
            pass
        case "pipe":
            os.mkfifo(path)
        case "folder":
            (path / "inner").mkdir(parents=True)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
                server.bind(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "dangling link":
            path.symlink_to("nowhere")
        case "link to itself":
            path.symlink_to(path.name)
        case "1 TB":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case _:
            path.write_bytes(TEXTS[kind])


NODES = ["missing", "pipe", "folder", "socket", "device", "dangling link", "link to itself", "1 TB"]


def put(content: Any, path: tuple[Any, ...], kind: Any) -> None:
    """Replace or remove the value at a path of nested containers."""
    for key in path[:-1]:
        content = content[key]
    if kind == "missing":
        del content[path[-1]]
    else:
        content[path[-1]] = VALUES[kind] if isinstance(kind, int) else TENSORS[kind]()


def paths(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in nested containers."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


def prepare(state: State, place: Path) -> None:
    """Bring a copy of a good run into a state."""
    if state.place[0] == "file":
        replace_file(place / state.place[1], state.kind)
    elif state.place[0] == "config":
        config = yaml.safe_load((place / "config.yaml").read_text())
        put(config, state.place[1:], state.kind)
        (place / "config.yaml").write_text(yaml.safe_dump(config))
    elif state.place[0] == "exported":
        metadata = exported_metadata(place)
        put(metadata, state.place[1:], state.kind)
        save_file(load_file(place / EXPORTED), place / EXPORTED, {"minigpt": json.dumps(metadata)})
    else:
        from minigpt.runs.checkpoint_io import write

        content = torch.load(place / STEP_FILE, weights_only=True)
        put(content, state.place[1:], state.kind)
        for name in ("step_10", "best", "last"):
            (place / f"checkpoints/{name}.ckpt").unlink()
            write(content, place / f"checkpoints/{name}.ckpt")


def exported_metadata(place: Path) -> dict[str, Any]:
    """The metadata of an exported model."""
    with safe_open(place / EXPORTED, "pt") as file:
        return json.loads(file.metadata()["minigpt"])


def draw(strategy: st.SearchStrategy[State], count: int) -> list[State]:
    """Different states of a strategy, the same ones in every call."""
    found: dict[State, None] = {}

    @hypothesis.settings(
        max_examples=4 * count, derandomize=True, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(strategy)
    def collect(state: State) -> None:
        if len(found) < count:
            found[state] = None

    collect()
    return list(found)


def states(good: Path, count: int) -> list[State]:
    """`count` states: half of them of whole files, the others of values in the configuration and in checkpoints."""
    training = st.sampled_from(["resume", "resume latest", "resume auto", "requeued"])
    opening = st.sampled_from(["evaluate", "generate", "export"])
    file = st.sampled_from(FILES).map(lambda name: ("file", name))
    kinds = st.sampled_from([*NODES, *TEXTS])
    config = yaml.safe_load((good / "config.yaml").read_text())
    content = torch.load(good / STEP_FILE, weights_only=True)
    in_config = st.sampled_from([("config", *path) for path in paths(config)])
    metadata = {name: content[name] for name in ("minigpt", "global_step")}
    in_metadata = st.sampled_from([("checkpoint", *path) for path in paths(metadata)])
    in_content = st.sampled_from([("checkpoint", *path) for path in paths(content)])
    in_exported = st.sampled_from([("exported", *path) for path in paths(exported_metadata(good))])
    value = st.one_of(st.integers(0, len(VALUES) - 1), st.just("missing"))
    tensor = st.one_of(value, st.sampled_from(list(TENSORS)))
    shares = {
        st.builds(State, st.one_of(training, opening, st.just("new run")), file, kinds): 0.5,
        st.builds(State, training, in_config, value): 0.15,
        st.builds(State, opening, in_metadata, value): 0.15,
        st.builds(State, st.just("evaluate exported"), in_exported, value): 0.05,
        st.builds(State, st.one_of(training, opening), in_content, tensor): 0.15,
    }
    return [state for strategy, share in shares.items() for state in draw(strategy, max(1, round(count * share)))]
