"""Callbacks by themselves: steps left out, samples of a resumed run."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from minigpt.runs.run_files import append_sample, truncate_samples
from minigpt.training.callbacks.skip_spikes import SkipSpikes


@pytest.fixture
def step():
    """Give a callback gradients of a norm; returns whether they are still there."""
    module = nn.Linear(1, 1, bias=False)
    rows = []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: rows.append((step, metrics)))
    trainer = SimpleNamespace(global_step=0, is_global_zero=True, loggers=[logger])

    def take(callback, norm):
        module.weight.grad = torch.full((1, 1), float(norm))
        callback.on_before_optimizer_step(trainer, module, None)
        trainer.global_step += 1
        return module.weight.grad is not None

    take.rows = rows
    return take


def test_a_spike_is_left_out_counted_and_logged(step):
    callback = SkipSpikes(sigma=6, window=8)
    assert all(step(callback, norm) for norm in (1.0, 1.1, 0.9, 1.0, 1.1, 0.9))
    assert not step(callback, 100)
    assert callback.skipped == 1 and step.rows == [(7, {"optim/skipped_steps": 1})]


def test_nothing_is_left_out_before_half_the_window_is_known(step):
    callback = SkipSpikes(sigma=6, window=8)
    assert all(step(callback, norm) for norm in (1.0, 1.1, 100.0))


def test_gradients_that_grow_for_good_are_taken(step):
    callback = SkipSpikes(sigma=2, window=4)
    for norm in (1.0, 1.1, 0.9, 1.0):
        step(callback, norm)
    assert [step(callback, norm) for norm in (9.0, 9.1, 9.0, 9.1, 9.0, 9.1)][-3:] == [True] * 3


def test_what_is_no_number_is_left_to_the_module(step):
    callback = SkipSpikes(sigma=6, window=2)
    step(callback, 1.0)
    assert step(callback, float("nan")) and callback.skipped == 0
    assert list(callback.norms) == [1.0]


def test_a_resumed_run_judges_as_the_whole_one(step):
    whole = SkipSpikes(sigma=6, window=4)
    for norm in (1.0, 1.1, 0.9):
        step(whole, norm)
    resumed = SkipSpikes(sigma=6, window=4)
    resumed.load_state_dict(whole.state_dict())
    assert not step(resumed, 50.0) and not step(whole, 50.0)


def test_samples_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "samples.md"
    for step in (10, 20, 30):
        append_sample(path, step, 2.0, f"## Step {step} was said")
    text = path.read_text()
    truncate_samples(path, 20)
    assert path.read_text() == text[: text.index("## Step 30, v")]
    truncate_samples(tmp_path / "none.md", 1)
