"""The figures of summary.json, worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from minigpt.runs.run import Run
from minigpt.runs.summary import read_summary
from minigpt.training import run_report
from minigpt.training.callbacks.checkpoint_callback import Checkpoints
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.run_report import best_loss, measured
from minigpt.training.terminal import console, show_config, show_model, show_warning


@pytest.fixture
def trainer(tmp_path):
    """A Trainer after six steps, whose best validation was that of step 4."""
    metrics, checkpoints = Metrics(), Checkpoints(run=Run(tmp_path, {}), every_n_steps=None, keep_last_n=1)
    metrics.train_s, metrics.peak_name = 20.0, "by hand"
    metrics.val = {"val/loss": 2.0, "val/bpc": 1.0}
    checkpoints.best_loss, checkpoints.best_step = 1.5, 4
    return SimpleNamespace(global_step=6, callbacks=[metrics, checkpoints], loggers=[])


def figures(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "time", SimpleNamespace(monotonic=lambda: run_report.STARTED + 7))
    module = SimpleNamespace(model=torch.nn.Linear(3, 2), tokens_per_character=0.5)
    data, run = (
        SimpleNamespace(batch_size=4, block_size=16),
        Run(tmp_path, {}, previous_summary={"wall_clock_s": 100.0}),
    )
    return measured(trainer, module, data, run)


def test_the_figures_of_a_run(trainer, tmp_path, monkeypatch):
    assert figures(trainer, tmp_path, monkeypatch) == {
        **{"steps": 6, "tokens": 6 * 4 * 16, "wall_clock_s": pytest.approx(107), "train_s": 20, "parameters": 8},
        "flops_per_token": 36,
        **{"val_loss": 2.0, "val_bpc": 1.0, "val_loss_best": 1.5, "val_loss_best_step": 4},
        **{"val_bpc_best": pytest.approx(1.5 * 0.5 / math.log(2)), "tokens_per_s": 6 * 4 * 16 / 20},
        "mfu_peak": "by hand",
    }


def test_the_figures_of_a_run_that_did_nothing(trainer, tmp_path, monkeypatch):
    trainer.callbacks, trainer.global_step = [Metrics()], 0
    found = figures(trainer, tmp_path, monkeypatch)
    none = ("val_loss", "val_bpc", "val_loss_best", "val_loss_best_step", "val_bpc_best", "tokens_per_s", "mfu_peak")
    assert all(found[name] is None for name in none) and found["steps"] == found["tokens"] == 0


def test_without_checkpoints_the_newest_loss_counts(trainer):
    assert best_loss(trainer) == (1.5, 4)
    metrics, checkpoints = trainer.callbacks
    checkpoints.best_loss, checkpoints.best_step = math.inf, None
    assert best_loss(trainer) == (2.0, None)
    trainer.callbacks = [metrics]
    assert best_loss(trainer) == (2.0, None)
    trainer.callbacks = []
    assert best_loss(trainer) == (None, None)


def test_the_configuration_is_shown_as_a_tree():
    with console.capture() as shown:
        show_config(
            {"seed": 1, "model": {"_target_": "a.b.GPT", "dim": 8, "mlp": {"_target_": "a.MLP", "_partial_": 1}}}
        )
    lines = [line.strip("│├└─ ") for line in shown.get().splitlines()]
    assert lines == ["configuration", "seed=1", "model GPT", "dim=8", "mlp MLP"]


def test_the_parts_of_a_model_are_shown_with_their_sizes():
    blocks = torch.nn.ModuleList(torch.nn.Linear(3, 2) for _ in range(2))
    model = torch.nn.ModuleDict({"blocks": blocks, "dropout": torch.nn.Dropout(), "head": torch.nn.Linear(2, 1000)})
    with console.capture() as shown:
        show_model(model, 123_456)
    rows = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert rows == [
        *("ModuleDict parameters", "blocks (2 x 8) 16", "head 3,000", "total (tied weights once) 3,016"),
        "floating-point operations per trained token 123,456",
    ]


def test_a_run_begins_with_its_warning_its_text_and_its_device(trainer, tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "start_log", lambda directory: None)
    corpus = SimpleNamespace(train=range(3600), val=range(400), tokenizer=SimpleNamespace(vocab_size=65))
    data = SimpleNamespace(warning="no figure to compare", block_size=16, path="a.txt", corpus=corpus)
    trainer.strategy, trainer.world_size = SimpleNamespace(root_device=torch.device("cpu")), 2
    trainer.precision = "32-true"
    run = Run(tmp_path, {"seed": 1, "quiet": False}, ["seed=1"], previous_summary={"wall_clock_s": 100.0})
    with console.capture() as shown:
        run_report.log_run_start(trainer, SimpleNamespace(model=torch.nn.Linear(3, 2)), data, run)
    for text in ("no figure to compare", "a.txt: 3,600 tokens", "400 to validate on", "vocabulary 65", "cpu x 2"):
        assert text in shown.get()
    known = {"status": "running", "overrides": ["seed=1"], "wandb_id": None, "wall_clock_s": 100.0}
    assert read_summary(tmp_path) == known, "what an earlier part of the run has left stays"


def test_a_warning_is_shown_where_there_is_one():
    with console.capture() as shown:
        show_warning(None)
    assert shown.get() == ""
    with console.capture() as shown:
        show_warning("for tuning")
    assert "for tuning" in shown.get()
