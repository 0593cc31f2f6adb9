"""Components from outside the project: a folder with one Python file and a few YAML files, and nothing edited here."""

import csv
import json
import os
from pathlib import Path

import pytest
from tests.forkserver import run_command

CODE = '''
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from lightning import Callback
from torch import nn

from minigpt.data.datamodule import TextDataModule
from minigpt.model.attention import CausalSelfAttention


class SharpAttention(CausalSelfAttention):
    """Attention with sharper scores."""

    def __init__(self, *, sharpness: Annotated[int, Ge(1)], **options: Any) -> None:
        super().__init__(**options)
        self.sharpness = sharpness

    def scores(self, q, k):
        return self.sharpness * super().scores(q, k)


class TanhMLP(nn.Module):
    """A fully connected layer between two."""

    def __init__(self, *, dim: int, activation: Literal["tanh", "sigmoid"]) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.activation = getattr(torch, activation)

    def forward(self, x):
        return self.down(self.activation(self.up(x)))


class Shout(TextDataModule):
    """A text of its own."""

    def __init__(self, *, repeats: Annotated[int, Ge(10)], **options: Any) -> None:
        super().__init__(path="shout.txt", **options)
        self.repeats = repeats

    def locate_or_download(self):
        path = self.data_dir / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("HARK! the herald angels sing. " * self.repeats)
        return path


class SignSGD(torch.optim.Optimizer):
    """Steps of one size."""

    def __init__(self, params, *, lr: float, decay: Annotated[float, Ge(0)] = 0.0) -> None:
        super().__init__(params, {"lr": lr, "decay": decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["decay"]).sub_(group["lr"] * p.grad.sign())
        return loss


class Count(Callback):
    """Counts steps into a file of the run directory."""

    def __init__(self, *, run, every: Annotated[int, Ge(1)] = 1) -> None:
        self.run, self.every = run, every

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step % self.every == 0:
            with (self.run.directory / "counted.txt").open("a") as file:
                print(trainer.global_step, file=file)
'''
YAML = {
    "model/attention/sharp.yaml": "_target_: my_components.SharpAttention\n_partial_: true\nsharpness: 2\n",
    "model/mlp/tanh.yaml": "_target_: my_components.TanhMLP\n_partial_: true\nactivation: tanh\n",
    "data/shout.yaml": "defaults:\n  - _base\n  - _self_\n\n_target_: my_components.Shout\nrepeats: 100\n",
    "optimizer/sign.yaml": "_target_: my_components.SignSGD\n_partial_: true\nlr: 1e-3\n",
    "callbacks/count.yaml": (
        "defaults:\n  - default\n  - _self_\n\ncount:\n  _target_: my_components.Count\n  _partial_: true\n"
    ),
    "experiment/mine.yaml": (
        "# @package _global_\ndefaults:\n  - override /model/attention: sharp\n  - override /model/mlp: tanh\n"
        "  - override /data: shout\n  - override /optimizer: sign\n  - override /callbacks: count\n"
        "  - override /logger: csv\n\nname: mine\nmodel:\n  num_layers: 1\n  num_heads: 2\n  dim: 16\n"
        "  block_size: 16\n"
        "data:\n  batch_size: 4\ntrainer:\n  max_steps: 5\n  val_every_n_steps: 5\n  log_every_n_steps: 1\n"
    ),
}
WRONG = [
    ("model.attention.sharpness=0", "model.attention.sharpness=0 must be at least 1"),
    ("model.attention.sharp=1", "did you mean 'model.attention.sharpness'?"),
    ("+model.attention.num_heads=2", "is given by model.num_heads"),
    ("model.mlp.activation=tan", "did you mean 'tanh'?"),
    ("data.repeats=3", "data.repeats=3 must be at least 10"),
    ("+optimizer.decay=-1", "optimizer.decay=-1 must be at least 0"),
    ("optimizer.lr=fast", "optimizer.lr=fast must be of type float"),
    ("+callbacks.count.every=0", "callbacks.count.every=0 must be at least 1"),
    ("+callbacks.count.run=here", "callbacks.count.run is given by the run"),
    ("experiment=mind", "did you mean 'mine'?"),
    ("model/attention=sharpe", "did you mean 'sharp'?"),
]


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with components, and a run of five steps with them."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_components.py").write_text(CODE)
    for name, text in YAML.items():
        (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "conf" / name).write_text(text)
    done = cli(folder, "train.py", "--config-dir=conf", "experiment=mine", f"paths.run_dir={folder / 'run'}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def cli(folder: Path, script: str, *options: str):
    return run_command(script, [*options, "paths.log_dir=logs"], folder, os.environ | {"MINIGPT_DATA_DIR": "data"})


def test_components_of_a_folder_train(outside):
    run = outside / "run"
    with (run / "metrics.csv").open() as file:
        assert [r["step"] for r in csv.DictReader(file) if r["train/loss"]] == ["1", "2", "3", "4", "5"]
    assert (run / "counted.txt").read_text().split() == ["1", "2", "3", "4", "5"]
    assert json.loads((run / "summary.json").read_text())["text"] == "shout.txt"


@pytest.mark.parametrize(("typed", "says"), WRONG)
def test_a_wrong_option_of_each_is_one_line(outside, typed, says):
    options = [] if typed.startswith("experiment=") else ["experiment=mine"]
    done = cli(outside, "train.py", "--config-dir=conf", *options, typed)
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1 and says in done.stderr
    assert not (outside / "logs" / "runs").exists()


def test_the_run_is_resumed_with_the_same_folder_and_refused_without(outside):
    run = outside / "run"
    refused = cli(outside, "train.py", f"resume={run}", "trainer.max_steps=7")
    assert refused.returncode == 2 and "my_components." in refused.stderr and "--config-dir" in refused.stderr
    done = cli(outside, "train.py", "--config-dir=conf", f"resume={run}", "trainer.max_steps=7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (run / "counted.txt").read_text().split() == ["1", "2", "3", "4", "5", "6", "7"]


def test_the_other_commands_build_it_only_where_the_folder_is_named(outside):
    prompt = ["prompt=HARK", "max_new_tokens=4"]
    refused = cli(outside, "generate.py", f"run={outside / 'run'}", *prompt)
    assert refused.returncode == 2 and "my_components." in refused.stderr
    done = cli(outside, "generate.py", "--config-dir=conf", f"run={outside / 'run'}", *prompt)
    assert done.returncode == 0 and done.stdout.startswith("HARK"), done.stderr
    done = cli(outside, "evaluate.py", "--config-dir=conf", f"run={outside / 'run'}")
    assert done.returncode == 0 and json.loads(done.stdout)["val_loss"] > 0, done.stderr


def test_a_sweep_takes_the_folder_along(outside):
    done = cli(outside, "train.py", "-m", "--config-dir=conf", "experiment=mine", "seed=1,2")
    assert done.returncode == 0 and "2 runs, the best first" in done.stdout, done.stdout + done.stderr


TYPED = [
    ["+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor"],
    ["~callbacks"],
    ["~logger"],
    ["callbacks=none"],
    ["logger=none"],
    ["trainer.devices=auto", "+trainer.profiler=simple"],
    ["hydra.verbose=true"],
    [
        "optimizer._target_=my_components.SignSGD",
        "~optimizer.adamw_lr",
        "~optimizer.momentum",
        "~optimizer.weight_decay",
    ],
    ["tags=[one,two]", "logger=many_loggers"],
    ["debug=limit"],
    ["debug=overfit", "trainer.max_steps=3", "trainer.val_every_n_steps=3"],
    ["debug=profiler"],
    ["debug=default"],
]


@pytest.mark.parametrize("options", TYPED, ids=" ".join)
def test_what_is_typed_is_trusted(outside, tmp_path, options):
    tiny = "model.num_layers=1 model.num_heads=2 model.dim=16 model.block_size=16 data.batch_size=4 trainer.max_steps=4"
    tiny += " trainer.val_every_n_steps=2 data=synthetic data.num_chars=5000 logger=csv"
    keys = {option.partition("=")[0] for option in options}
    base = [o for o in tiny.split() if o.partition("=")[0] not in keys | ({"logger"} if "~logger" in keys else set())]
    (tmp_path / "my_components.py").write_text(CODE)
    done = cli(tmp_path, "train.py", *base, *options, f"paths.run_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "completed" and summary["steps"] >= 3
    assert (tmp_path / "run/metrics.csv").exists() == (not {"~logger"} & keys and "logger=none" not in options)
    assert (tmp_path / "run/checkpoints/last.ckpt").exists() == (
        not {"~callbacks"} & keys and "callbacks=none" not in options
    )
    if "tags=[one,two]" in options:
        assert summary["tags"] == ["one", "two"] and (tmp_path / "run/tensorboard").is_dir()


@pytest.mark.parametrize("launcher", ["hydra/launcher=basic", "hydra/launcher=process hydra.launcher.n_jobs=2"])
def test_other_launchers_and_their_options(tmp_path, launcher):
    options = ["debug=fast", "trainer.max_steps=4", "trainer.val_every_n_steps=4", "seed=1,2"]
    done = cli(tmp_path, "train.py", "-m", *options, *launcher.split())
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr
    (ranking,) = (tmp_path / "logs/sweeps").glob("*/ranking.json")
    assert [row["status"] for row in json.loads(ranking.read_text())] == ["completed", "completed"]
