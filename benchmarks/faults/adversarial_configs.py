"""Malicious saved configurations and links in run directories, and names of runs that lead outside the log folder.

What is typed is trusted, like any program's arguments: a `_target_` on the command line is the user's own. What is
stored, a run's config.yaml, may come from somebody else.
"""

import contextlib
import copy
import itertools
import os
import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.faults.adversarial import TARGETS, Trap
from benchmarks.faults.concurrency import SlowText, serve
from benchmarks.faults.harness import TINY, parallel, run
from benchmarks.faults.results import Result, Row

OTHER_TARGETS = """
    hydra.utils.call minigpt.runs.run.open_run lightning.pytorch.loggers.CSVLogger pathlib.Path.touch
""".split()
NODES = ("model", "data", "optimizer", "callbacks.samples", "logger.csv", "trainer")
PATHS = (
    "paths.log_dir",
    "paths.data_dir",
    "paths.runs_dir",
    "paths.run_dir",
    "data.data_dir",
    "trainer.default_root_dir",
)
RUN_FILES = ("metrics.csv", "train.log", "samples.md", "summary.json", "config.yaml", "checkpoints/last.ckpt")
RESUME = ["ignore_fingerprint=true", "trainer.max_steps=12"]
# Hydra's --experimental-rerun unpickles a file; argparse accepts abbreviations of options.
COMMAND_LINES = [
    "--experimental-rerun=PICKLE", "--exp=PICKLE", "name=../../outside", "name=/outside", "name=.hidden",
    "name='a/../../b'", "+trainer.default_root_dir=/outside2",
]  # fmt: skip


def set_values(config: dict[str, Any], path: str, values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration with other values in the node at a dotted path."""
    config = copy.deepcopy(config)
    node = config
    for key in path.split("."):
        node = node[key]
    node |= values
    return config


def malicious_configs(saved: dict[str, Any], canary: Path, url: str, outside: Path) -> dict[str, str]:
    """Saved configurations, as YAML, that try to do harm when a run is resumed."""
    found = {}
    for target, node in itertools.product([*TARGETS, *OTHER_TARGETS], NODES):
        values = {"_target_": target, "_args_": [str(canary), "w"], "_partial_": False}
        found[f"{target} as {node}"] = yaml.safe_dump(set_values(saved, node, values))
    for path in PATHS:
        node, _, key = path.partition(".")
        found[f"{path} outside"] = yaml.safe_dump(set_values(saved, node, {key: str(outside)}))
    text = {"_target_": "minigpt.data.datamodule.TextDataModule", "path": None, "url": url, "sha256": None}
    config = set_values(saved, "data", text)
    del config["data"]["num_chars"], config["data"]["generator_seed"]
    found["text from a URL"] = yaml.safe_dump(config)
    wandb = {"_target_": "minigpt.training.wandb_logger.WandB", "_partial_": True, "mode": "offline", "project": "x"}
    logger = {"mine": wandb | {"save_dir": str(outside)}}
    found["another logger outside"] = yaml.safe_dump(set_values(saved, "logger", logger))
    for interpolation in ("${oc.env:HOME}", "${oc.decode:x}", "${hydra:runtime.cwd}"):
        found[interpolation] = yaml.safe_dump(saved | {"name": interpolation})
    found["hydra node"] = yaml.safe_dump(saved | {"hydra": {"callbacks": {"x": {"_target_": "os.system"}}}})
    return found | malicious_yaml(saved, canary)


def malicious_yaml(saved: dict[str, Any], canary: Path) -> dict[str, str]:
    """Python tags, exponentially growing aliases, deep nesting, and files that are not configurations."""
    tags = ("!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system")
    found = {tag: yaml.safe_dump(saved) + f"\nname: {tag} ['touch {canary}']\n" for tag in tags}
    found["growing aliases"] = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghij")
    )
    return found | {"nested": "[" * 5000, "a list": "[1, 2]", "noise": "\x00\x01\x02"}


def try_config(folder: Path, item: tuple[int, str]) -> str:
    """Resume a run with a malicious configuration; returns the failure, if any."""
    number, text = item
    place = folder / f"config-{number}"
    shutil.copytree(folder / "good", place)
    for name in ("config.yaml", ".hydra/config.yaml", ".hydra/hydra.yaml"):
        (place / name).write_text(text)
    done = run([f"resume={place}", *RESUME], folder)
    return "" if done.exit_code == 0 or done.is_usage_error else f"{text[-100:]!r}: {done}"


def try_command_line(folder: Path, option: str) -> str:
    """Train with a malicious option; returns the failure, if any."""
    option = option.replace("PICKLE", str(folder / "rerun.pickle"))
    done = run([option, *TINY, f"paths.log_dir={folder / 'logs'}", "trainer.max_steps=2"], folder)
    allowed = option.startswith("+trainer.default_root_dir") and done.exit_code == 0
    return "" if done.is_usage_error or allowed else f"{option}: {done}"


def try_link(folder: Path, name: str) -> str:
    """Resume a run in which a file is a link to a file elsewhere; returns the failure, if any."""
    place, target = folder / f"link-{name.replace('/', '-')}", folder.parent / "victim"
    shutil.copytree(folder / "good", place)
    content = (place / name).read_bytes() if name == "config.yaml" else b"mine\n"
    target.write_bytes(content)
    (place / name).unlink()
    (place / name).symlink_to(target)
    done = run([f"resume={place}", *RESUME], folder)
    unchanged = target.read_bytes() == content
    target.unlink()
    return "" if done.is_usage_error and unchanged else f"link {name}: {done}"


def configs(folder: Path, baselines: int) -> Iterator[Row]:
    """Malicious saved configurations, command lines, and links that lead outside the run directory."""
    good = folder / "good"
    assert run([*TINY, "trainer.max_steps=10", f"paths.run_dir={good}"], folder).exit_code == 0
    canary, server, outside = folder / "canary", serve(SlowText), folder.parent / "outside"
    url = f"http://127.0.0.1:{server.server_port}/x.txt"
    saved = yaml.safe_load((good / "config.yaml").read_text())
    texts = malicious_configs(saved, canary, url, outside).values()
    (folder / "rerun.pickle").write_bytes(pickle.dumps(Trap(os.system, f"touch {canary}")))
    results = parallel(partial(try_config, folder), enumerate(texts))
    results += parallel(partial(try_command_line, folder), COMMAND_LINES)
    results += [try_link(folder, name) for name in RUN_FILES]
    effects, failures = int(canary.exists()) + server.hits + int(outside.exists()), [r for r in results if r]
    note = f"effects: {effects}. {'; '.join(failures)[:600]}"
    ours = Result(len(results) - len(failures) - effects, len(results), note)
    baseline = configs_baseline(folder, canary) if baselines else None
    server.shutdown()
    fault = f"{len(results)} malicious saved configurations, run names, links: no effect, nothing outside, one line"
    yield Row(fault, ours, "hydra.utils.instantiate", baseline)


def configs_baseline(folder: Path, canary: Path) -> Result:
    """Instantiate targets with Hydra alone."""
    from hydra.utils import instantiate

    trap = folder / "trap.pt"
    torch.save(Trap(open, str(canary), "w"), trap)
    nodes: list[dict[str, Any]] = [
        {"_target_": "builtins.open", "_args_": [str(canary), "w"]},
        {"_target_": "pathlib.Path.touch", "_args_": [canary]},
        {"_target_": "torch.load", "_args_": [str(trap)], "weights_only": False},
        {"_target_": "os.system", "_args_": [f"touch {canary}"]},
    ]
    effects = 0
    for node in nodes:
        with contextlib.suppress(Exception):
            instantiate(node)
        effects += canary.exists()
        canary.unlink(missing_ok=True)
    return Result(len(nodes) - effects, len(nodes), f"effects: {effects}")
