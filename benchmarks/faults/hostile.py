"""Files and command lines that want to do harm, wrong resumes, secrets."""

import contextlib
import copy
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
import yaml
from benchmarks.faults.crowd import SlowText, serve
from benchmarks.faults.killed import STOCK
from benchmarks.faults.trial import ROOT, TINY, Ended, Process, Result, Row, parallel, run

DOORS = ("train", "evaluate", "generate", "export")


class Trap:
    """Calls something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def traps(canary: Path, url: str) -> dict[str, Trap]:
    """What a pickle may try."""
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


def hostile_checkpoints(folder: Path, good: Path, canary: Path, url: str) -> dict[str, Path]:
    """Files that pretend to be checkpoints; those that can carry a seal have one."""
    from minigpt.runs.checkpoints import write

    folder.mkdir()
    files = {}

    def put(name: str, content: bytes) -> None:
        files[name] = folder / f"{name.replace(' ', '-')}.ckpt"
        files[name].write_bytes(content)

    state = torch.load(good, weights_only=True)
    for name, trap in traps(canary, url).items():
        for place in ("state_dict", "minigpt", "callbacks", "hyper_parameters"):
            path = folder / f"{name}-{place}.ckpt"
            write({**state, place: trap}, path)
            files[f"{name} in {place}"] = path
        put(f"raw pickle {name}", pickle.dumps(trap))
        legacy = io.BytesIO()
        torch.save({"state_dict": trap}, legacy, _use_new_zipfile_serialization=False)
        put(f"legacy format {name}", legacy.getvalue())
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo("pickle")
            info.size = len(pickle.dumps(trap))
            tar.addfile(info, io.BytesIO(pickle.dumps(trap)))
        put(f"tar {name}", archive.getvalue())
    targets = ["os.system", "builtins.open", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen"]
    targets += ["minigpt.runs.run.open_run", "minigpt.model.gpt.nn", "hydra.utils.instantiate", "", "..", "__main__.x"]
    for target in targets:
        for part in (None, "attention"):
            described = copy.deepcopy(state)
            node = described["minigpt"]["model"] if part is None else described["minigpt"]["model"][part]
            node |= {"_target_": target, "command": f"touch {canary}", "_args_": [str(canary), "w"]}
            path = folder / f"target-{target.replace('.', '_')}-{part}.ckpt"
            write(described, path)
            files[f"{target} as {part or 'model'}"] = path
    for name, changes in {
        "huge": {"dim": 10**7, "num_heads": 2},
        "no heads": {"num_heads": 0},
        "deep": {"num_layers": "x"},
    }.items():
        described = copy.deepcopy(state)
        described["minigpt"]["model"] |= changes
        write(described, folder / f"{name}.ckpt")
        files[name] = folder / f"{name}.ckpt"
    for name, text in {"escape": "../../escape.txt", "address": url, "root": "/etc/hostname"}.items():
        described = copy.deepcopy(state)
        described["minigpt"]["text"] |= {"path": text, "sha256": "0" * 64}
        write(described, folder / f"text-{name}.ckpt")
        files[f"text at {text}"] = folder / f"text-{name}.ckpt"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(200_000_000))
    put("zip bomb", sealed(bomb.getvalue()))
    for name, content in {"empty": b"", "text": b"hello", "noise": os.urandom(5000), "list": None}.items():
        if content is None:
            write([1, 2], folder / "list.ckpt")  # type: ignore[arg-type]
            files["a list"] = folder / "list.ckpt"
        else:
            put(name, content)
    return files


def sealed(archive: bytes) -> bytes:
    """A zip archive with the seal that miniGPT's checkpoints carry."""
    import hashlib

    body = archive[:-2] + struct.pack("<H", 64)
    return body + hashlib.sha256(body).hexdigest().encode()


def attempt(base: Path, door: str, path: Path) -> Ended:
    """One hostile file through one door."""
    place = base / f"{door}-{path.stem}"
    if door == "train":
        shutil.copytree(base / "good", place)
        for old in (place / "checkpoints").glob("*"):
            old.unlink()
        shutil.copy(path, place / "checkpoints/step_10.ckpt")
        options = [f"resume={place}", "resume_anyway=true", "trainer.max_steps=12"]
    else:
        options = [f"run={path}", *([f"to={place}.safetensors"] if door == "export" else [])]
        options += ["max_new_tokens=5"] * (door == "generate")
    return run(options, base, script=ROOT / f"src/{door}.py")


def checkpoints(folder: Path, controls: int) -> Iterator[Row]:
    """Every hostile checkpoint through every door."""
    from minigpt.config.conf import CONF

    assert CONF.is_dir()
    good = folder / "good"
    assert run([*TINY, "trainer.max_steps=10", f"paths.run_dir={good}"], folder).code == 0
    canary, server = folder / "canary", serve(SlowText)
    url = f"http://127.0.0.1:{server.server_port}/x.ckpt"
    corpus = hostile_checkpoints(folder / "corpus", good / "checkpoints/last.ckpt", canary, url)
    before = {p for p in folder.parent.rglob("*") if folder not in p.parents}
    items = [(door, path) for door, path in itertools.product(DOORS, corpus.values())]
    results = parallel(partial(one_checkpoint, folder), items)
    results += [one_checkpoint(folder, (door, url)) for door in DOORS[1:]]
    stray = {p for p in folder.parent.rglob("*") if folder not in p.parents} - before
    effects = int(canary.exists()) + server.hits + len(stray)
    untidy = [r for r in results if r]
    ours = Result(len(results) - effects - len(untidy), len(results), f"effects: {effects}. {'; '.join(untidy)[:600]}")
    stock = None
    if controls:
        harmed = 0
        bad = [p for n, p in corpus.items() if "open in" in n or "os.system in" in n]
        for path in bad:
            canary.unlink(missing_ok=True)
            with contextlib.suppress(Exception):
                torch.load(path, weights_only=False)
            harmed += canary.exists()
        canary.unlink(missing_ok=True)
        stock = Result(len(bad) - harmed, len(bad), f"effects: {harmed}")
    server.shutdown()
    fault = f"{len(corpus)} hostile checkpoints and an address through {', '.join(DOORS)}: no effect, one line"
    yield Row(fault, ours, "torch.load(weights_only=False)", stock)


def one_checkpoint(folder: Path, item: tuple[str, Path | str]) -> str:
    """What was wrong with the answer; a checkpoint whose text alone is hostile may be used for what needs no text."""
    door, path = item
    if isinstance(path, str):
        ended = run(
            [f"run={path}", *(["to=x.safetensors"] * (door == "export"))], folder, script=ROOT / f"src/{door}.py"
        )
    else:
        ended = attempt(folder, door, path)
    textual = isinstance(path, Path) and path.stem.startswith("text-")
    fine = (ended.code == 2 and ended.is_one_line) or (textual and ended.code == 0)
    fine = fine or (door == "train" and ended.code in (0, 1, 2) and "Traceback" not in ended.errors)
    return "" if fine else f"{door} {path}: exit code {ended.code} {ended.errors[-200:]}"


def hostile_configs(saved: dict[str, Any], canary: Path, url: str, outside: Path) -> dict[str, str]:
    """Saved configurations that try to do harm when a run is resumed."""
    found = {}
    targets = ["os.system", "builtins.open", "builtins.eval", "torch.load", "torch.hub.load", "subprocess.Popen"]
    targets += [
        "hydra.utils.call",
        "minigpt.runs.run.open_run",
        "lightning.pytorch.loggers.CSVLogger",
        "pathlib.Path.touch",
    ]
    for target, place in itertools.product(
        targets, ("model", "data", "optimizer", "callbacks.samples", "logger.csv", "trainer")
    ):
        config = copy.deepcopy(saved)
        node = config
        for key in place.split("."):
            node = node[key]
        node |= {"_target_": target, "_args_": [str(canary), "w"], "_partial_": False}
        found[f"{target} as {place}"] = yaml.safe_dump(config)
    for tag in ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system"):
        found[tag] = yaml.safe_dump(saved) + f"\nname: {tag} ['touch {canary}']\n"
    for path in ("paths.log_dir", "paths.data_dir", "paths.run_dir", "data.data_dir", "trainer.default_root_dir"):
        config = copy.deepcopy(saved)
        group, key = path.split(".")
        config[group][key] = str(outside)
        found[f"{path} outside"] = yaml.safe_dump(config)
    config = copy.deepcopy(saved)
    config["data"] |= {
        "_target_": "minigpt.data.datamodule.TextDataModule",
        "path": "x.txt",
        "url": url,
        "sha256": None,
    }
    del config["data"]["num_chars"], config["data"]["text_seed"]
    found["text from an address"] = yaml.safe_dump(config)
    config = copy.deepcopy(saved)
    wandb = {"_target_": "minigpt.training.loggers.WandB", "_partial_": True, "mode": "offline", "project": "x"}
    config["logger"]["mine"] = wandb | {"save_dir": str(outside)}
    found["another logger outside"] = yaml.safe_dump(config)
    for text in ("${oc.env:HOME}", "${oc.decode:x}", "${hydra:runtime.cwd}"):
        found[text] = yaml.safe_dump(saved | {"name": text})
    found["hydra node"] = yaml.safe_dump(saved | {"hydra": {"callbacks": {"x": {"_target_": "os.system"}}}})
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{n}: &{n} [{','.join([f'*{p}'] * 9)}]\n" for p, n in itertools.pairwise("abcdefghij")
    )
    found["aliases that grow"] = bomb
    found["nested"] = "[" * 5000
    found["a list"] = "[1, 2]"
    found["noise"] = "\x00\x01\x02"
    return found


def one_config(folder: Path, item: tuple[int, str]) -> str:
    """One hostile configuration, resumed."""
    number, text = item
    place = folder / f"config-{number}"
    shutil.copytree(folder / "good", place)
    for name in ("config.yaml", ".hydra/config.yaml", ".hydra/hydra.yaml"):
        (place / name).write_text(text)
    ended = run([f"resume={place}", "resume_anyway=true", "trainer.max_steps=12"], folder)
    fine = ended.code == 0 or (ended.code == 2 and ended.is_one_line)
    return "" if fine else f"{text[-100:]!r}: exit code {ended.code} {ended.errors[-300:]}"


COMMANDS = [
    "model._target_=os.system", "+model.x._target_=builtins.open", "+callbacks.x._target_=os.system",
    "+hydra.callbacks.x._target_=os.system", "hydra.sweeper._target_=os.system", "hydra.launcher._target_=os.system",
    "+hydra.job_logging.handlers.x.class=logging.FileHandler", "hydra.searchpath=[file:///tmp]", "--config-dir=/tmp",
    "--config-path=/tmp", "--config-name=x", "--experimental-rerun=PICKLE", "--exp=PICKLE", "-cd=/tmp", "hydra=default",
    "+hydra.callbacks={{x:{{_target_:os.system,command:'touch CANARY'}}}}", "name=../../outside", "name=/outside",
    "name=.hidden", "name='a/../../b'", "+trainer.default_root_dir=/outside2", "+trainer.profiler._target_=os.system",
]  # fmt: skip


def one_command(folder: Path, canary: Path, typed: str) -> str:
    """One hostile command line."""
    option = typed.replace("{{", "{").replace("}}", "}").replace("CANARY", str(canary))
    option = option.replace("PICKLE", str(folder / "rerun.pickle"))
    ended = run([option, *TINY, f"paths.log_dir={folder / 'logs'}", "trainer.max_steps=2"], folder)
    allowed = typed.startswith("+trainer.default_root_dir") and ended.code == 0
    fine = (ended.code == 2 and ended.is_one_line) or allowed
    return "" if fine else f"{typed}: exit code {ended.code} {ended.errors[-200:]}"


def configs(folder: Path, controls: int) -> Iterator[Row]:
    """Hostile saved configurations and command lines; run directories with links that lead outside."""
    good = folder / "good"
    assert run([*TINY, "trainer.max_steps=10", f"paths.run_dir={good}"], folder).code == 0
    canary, server, outside = folder / "canary", serve(SlowText), folder.parent / "outside"
    url = f"http://127.0.0.1:{server.server_port}/x.txt"
    saved = yaml.safe_load((good / "config.yaml").read_text())
    corpus = hostile_configs(saved, canary, url, outside)
    (folder / "rerun.pickle").write_bytes(pickle.dumps(Trap(os.system, f"touch {canary}")))
    results = parallel(partial(one_config, folder), enumerate(corpus.values()))
    results += parallel(partial(one_command, folder, canary), COMMANDS)
    target = folder.parent / "victim"
    target.write_text("mine\n")
    for name in ("metrics.csv", "train.log", "samples.md", "summary.json", "config.yaml", "checkpoints/last.ckpt"):
        place = folder / f"link-{name.replace('/', '-')}"
        shutil.copytree(good, place)
        content = (place / name).read_bytes()
        (place / name).unlink()
        if name == "config.yaml":
            target.write_bytes(content)
        (place / name).symlink_to(target)
        ended = run([f"resume={place}", "resume_anyway=true", "trainer.max_steps=12"], folder)
        changed = target.read_bytes() != (content if name == "config.yaml" else b"mine\n")
        target.write_text("mine\n")
        results.append("" if ended.code == 2 and ended.is_one_line and not changed else f"link {name}: {ended.code}")
    target.unlink()
    effects = int(canary.exists()) + server.hits + int(outside.exists())
    wrong = [r for r in results if r]
    note = f"effects: {effects}. {'; '.join(wrong)[:600]}"
    ours, stock = Result(len(results) - len(wrong) - effects, len(results), note), None
    if controls:
        from hydra.utils import instantiate

        harmed = 0
        for target in ("builtins.open", "pathlib.Path.touch", "torch.load", "os.system"):
            trap = folder / "trap.pt"
            torch.save(Trap(open, str(canary), "w"), trap)
            arguments = {
                "builtins.open": [str(canary), "w"],
                "pathlib.Path.touch": [canary],
                "torch.load": [str(trap)],
                "os.system": [f"touch {canary}"],
            }
            extra = {"weights_only": False} if target == "torch.load" else {}
            with contextlib.suppress(Exception):
                instantiate({"_target_": target, "_args_": arguments[target], **extra})
            harmed += canary.exists()
            canary.unlink(missing_ok=True)
        stock = Result(4 - harmed, 4, f"effects: {harmed}")
    server.shutdown()
    fault = f"{len(results)} hostile configurations, command lines, links: no effect, nothing outside, one line"
    yield Row(fault, ours, "hydra.utils.instantiate", stock)


WRONG = """
    seed=2 optimizer.lr=0.03 optimizer.adamw_lr=0.02 optimizer.momentum=0.9 optimizer.weight_decay=0.1
    model.dropout=0.2 model.dim=64 model.num_layers=3 model.num_heads=4
    data.batch_size=16 data.seed=2 +data.num_chars=21000 +data.text_seed=2
    scheduler.decay_fraction=0.9 scheduler.warmup_steps=3 trainer.accumulate_grad_batches=1 data.block_size=16
    model.tie_head=true +optimizer.iterations=4 +data.val_fraction=0.2
""".split()


def one_wrong(folder: Path, change: str) -> str:
    """A resume that would be another run."""
    ended = run([f"resume={folder / 'good'}", "trainer.max_steps=12", change], folder)
    name = change.partition("=")[0].lstrip("+")
    named = name in ended.errors or (name.startswith("data.") and "text" in ended.errors)
    named = named or (name == "trainer.accumulate_grad_batches" and "accumulate_grad_batches" in ended.errors)
    return (
        "" if ended.code == 2 and ended.is_one_line and named and "->" in ended.errors else f"{change}: {ended.errors}"
    )


def wrong_resume(folder: Path, controls: int) -> Iterator[Row]:
    """A run resumed with another setting."""
    assert run([*TINY, "trainer.max_steps=10", f"paths.run_dir={folder / 'good'}"], folder).code == 0
    results = parallel(partial(one_wrong, folder), WRONG)
    wrong = [r for r in results if r]
    ours, stock = Result(len(results) - len(wrong), len(results), "; ".join(wrong)[:400]), None
    if controls:
        assert run([f"folder={folder / 'stock'}", "max_steps=10"], folder, script=STOCK).code == 0
        ended = run([f"folder={folder / 'stock'}", "max_steps=12", "resume=last", "lr=0.5"], folder, script=STOCK)
        stock = Result(int(ended.code != 0), 1, "another learning rate taken without a word")
    yield Row("resume with one setting changed: refused, the change named", ours, "Lightning", stock)


def secrets(folder: Path, controls: int) -> Iterator[Row]:
    """A key in the environment, on the command line and in an address, looked for in all that a run leaves."""
    key, password = "canary0123456789abcdefcanary0123456789ab", "hunter2hunter2"
    environment = {"WANDB_API_KEY": key, "MY_SERVICE_TOKEN": "another-canary-token"}
    options = [
        *TINY,
        "logger=wandb",
        "trainer.max_steps=4",
        f"+callbacks.samples.prompt='A {key} another-canary-token'",
    ]
    options += [
        f"+data.url=https://user:{password}@127.0.0.1/x?token={password}",
        "name=run",
        f"paths.log_dir={folder}/logs",
    ]
    options = [o for o in options if not o.startswith("+data.url")]
    text = folder / "text.txt"
    text.write_text("All the world's a stage.\n" * 400)
    data = ["data=text", f"data.path={text}", f"+data.url='https://user:{password}@127.0.0.1/x?token={password}'"]
    tiny = [o for o in options if o != "debug=fast"] + data
    tiny += "model.num_layers=2 model.num_heads=2 model.dim=32 model.block_size=32".split()
    (folder / "data").mkdir()
    shutil.copy(text, folder / "data/text.txt")
    ended = run(tiny, folder, environment=environment)
    assert ended.code == 0, ended.errors
    (directory,) = (folder / "logs/runs").iterdir()
    assert run([f"run={directory}", f"to={folder}/logs/x.safetensors"], folder, script=ROOT / "src/export.py").code == 0
    found = leaks(folder / "logs", [key, password, "another-canary-token"])
    files = sum(p.is_file() for p in (folder / "logs").rglob("*"))
    ours, stock = Result(files - len(found), files, f"{len(found)} of {files} files have one {found[:4]}"), None
    if controls:
        script = folder / "app.py"
        script.write_text(
            "import hydra\n@hydra.main(version_base='1.3', config_path=None)\ndef main(c): pass\nmain()\n"
        )
        process = Process([f"+key={key}", f"hydra.run.dir={folder}/stock"], folder, script=script)
        process.wait()
        files = sum(p.is_file() for p in (folder / "stock").rglob("*"))
        found = leaks(folder / "stock", [key])
        stock = Result(files - len(found), files, f"{len(found)} of {files} files have it")
    yield Row("keys of the environment and passwords in addresses: in no file of a run", ours, "Hydra", stock)


def leaks(folder: Path, words: list[str]) -> list[str]:
    """The files that hold one of the words."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return [p.name for p in files if any(word.encode() in p.read_bytes() for word in words)]
