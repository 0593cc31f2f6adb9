"""The package: the wheel in an empty folder, the command `minigpt`, and the Python interface."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

import minigpt
from minigpt import __main__ as console
from minigpt import api
from minigpt.config.schema import COMMANDS

ROOT = Path(__file__).parents[1]
SMALL = ["debug=fast", "trainer.max_steps=4", "trainer.val_every_n_steps=4"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The contents of the wheel in a folder of their own."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", str(ROOT), "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("minigpt-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_has_the_commands_and_their_configuration(wheel):
    packaged = {p.relative_to(wheel / "minigpt/conf") for p in (wheel / "minigpt/conf").rglob("*.yaml")}
    assert packaged == {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")}
    assert {p.stem for p in (wheel / "minigpt/commands").iterdir()} == set(console.COMMANDS) == set(COMMANDS)
    assert (wheel / "minigpt/report/page.js").is_file() and (wheel / "minigpt/py.typed").is_file()
    (entry_points,) = wheel.glob("*.dist-info/entry_points.txt")
    assert "minigpt = minigpt.__main__:main" in entry_points.read_text()


FROM_PYTHON = """
import json, sys, minigpt
heavy = [name for name in ("torch", "lightning", "hydra") if name in sys.modules]
model = minigpt.load("RUN")
text = model.generate("A", max_new_tokens=8)
print(json.dumps([minigpt.__file__, heavy, model.step, text, model.evaluate()["val_loss"]]))
"""


def test_an_installed_package_trains_and_generates_in_an_empty_folder(wheel, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MINIGPT")} | {"PYTHONPATH": str(wheel)}

    def run(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run("-m", "minigpt", "train", *SMALL)
    assert done.returncode == 0, done.stderr
    (directory,) = (tmp_path / "logs/debug").iterdir()
    suggested = f"minigpt generate run={directory.relative_to(tmp_path)} prompt="
    assert suggested in done.stdout and "python src" not in done.stdout
    done = run("-m", "minigpt", "generate", f"run={directory}", "prompt=A", "max_new_tokens=8")
    assert done.returncode == 0 and done.stdout.startswith("A"), done.stderr
    done = run("-c", FROM_PYTHON.replace("RUN", str(directory)))
    assert done.returncode == 0, done.stderr
    file, heavy, step, text, loss = json.loads(done.stdout)
    assert Path(file).is_relative_to(wheel) and not heavy and step == 4
    assert len(text) == 9 and text.startswith("A")
    assert loss == pytest.approx(json.loads((directory / "summary.json").read_text())["val_loss"], abs=1e-6)


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["trane"], 2), (["--help"], 0)])
def test_without_a_command_the_commands_are_named(monkeypatch, capsys, arguments, code):
    monkeypatch.setattr(sys, "argv", ["minigpt", *arguments])
    with pytest.raises(SystemExit) as exit:
        console.main()
    printed = capsys.readouterr()
    assert exit.value.code == code
    assert "minigpt {train|evaluate|generate|export|report|playground}" in printed.out + printed.err
    assert bool(printed.err) == bool(code)


def test_a_configuration_is_that_of_the_command_line():
    config = minigpt.compose("model=small", "optimizer=adamw", "data.batch_size=8")
    assert config["data"]["batch_size"] == 8 and config["optimizer"]["_target_"] == "torch.optim.AdamW"
    assert config["name"].startswith("small-") and "hydra" not in config
    with pytest.raises(ValueError, match=r"unknown option 'optimizer.lrr'; did you mean 'optimizer.lr'"):
        minigpt.compose("optimizer.lrr=1")


def test_own_loops_are_built_from_the_components(tmp_path):
    import torch

    sizes = ["model.num_layers=1", "model.dim=32", "model.num_heads=2", "model.block_size=16", "data.batch_size=4"]
    config = minigpt.compose("data=synthetic", "data.num_chars=4000", *sizes, f"paths.data_dir={tmp_path}")
    data = minigpt.build(config["data"])
    model = minigpt.build(config["model"], vocab_size=data.corpus.tokenizer.vocab_size)
    loader = data.train_loader(batch_size=4, micro_batches=1, rank=0, world_size=1, first_step=0, last_step=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for tokens, targets in loader:
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert len(losses) == 3 and losses[-1] < losses[0]


def test_a_training_that_fails_says_so_and_leaves_no_directory_for_a_wrong_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"trainer\.max_steps"):
        minigpt.train("debug=fast", "trainer.max_steps=0")
    assert not any(tmp_path.iterdir())
    monkeypatch.setattr(api, "run_command", lambda command, options: 1)
    with pytest.raises(RuntimeError, match="exit code 1: see logs/debug"):
        minigpt.train("debug=fast")


def test_an_interrupt_reaches_the_training(tmp_path, monkeypatch, capsys):
    """As the stop button of a notebook: the process of the training is told, and its last lines are printed."""
    monkeypatch.chdir(tmp_path)

    def interrupt():
        while not list(tmp_path.glob("run/metrics.csv")):
            time.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        minigpt.train("debug=fast", "trainer.max_steps=100000", "trainer.log_every_n_steps=1", "paths.run_dir=run")
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "interrupted"
    assert "interrupted" in capsys.readouterr().out
