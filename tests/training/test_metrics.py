"""The figures of a run, against numbers worked out by hand from a clock that the test moves."""

from types import SimpleNamespace

import lightning
import pytest
from tests.training.test_module import train

from minigpt.training.callbacks import metrics
from minigpt.training.callbacks.metrics import Metrics

TOKENS = 4 * 16  # of a step: batch_size x block_size
PEAK = 1e6  # [FLOP/s]


class Clock(lightning.Callback):
    """A clock that stands still but for the seconds that each training step and each validation take.

    It comes after `Metrics`: what it adds in a hook is seen by the hooks after that one.
    """

    def __init__(self, step_seconds):
        self.now, self.step_seconds = 1000.0, iter(step_seconds)

    def on_train_batch_start(self, *args):
        self.now += next(self.step_seconds)

    def on_validation_start(self, *args):
        self.now += 100

    def on_validation_end(self, *args):
        self.now += 10_000  # samples, and saving the best checkpoint


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A run of six steps that take 1, 2, ... 6 seconds, read every second step and validated every third."""
    clock, callback = Clock([1, 2, 3, 4, 5, 6]), Metrics()
    monkeypatch.setattr(metrics, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(metrics, "peak_flops", lambda device, precision: (PEAK, "by hand"))
    options = {"max_steps": 6, "val_every_n_steps": 3, "callbacks": [callback, clock]}
    module, _, record = train(tmp_path, log_every_n_steps=2, **options)
    return SimpleNamespace(callback=callback, record=record, module=module)


def test_speed_is_that_of_the_training_steps_alone(measured):
    seconds = [1 + 2, 3 + 4, 5 + 6]  # two steps each; a validation lies within the second and after the third
    column = measured.record.column
    assert column("throughput/tokens_per_s") == pytest.approx([2 * TOKENS / s for s in seconds])
    assert column("throughput/step_ms") == pytest.approx([1500, 3500, 5500])
    assert measured.callback.train_s == pytest.approx(21)
    assert measured.callback.tokens_per_s == pytest.approx(2 * TOKENS / 11)
    assert column("progress/tokens") == [2 * TOKENS, 4 * TOKENS, 6 * TOKENS]


def test_mfu_is_the_share_of_the_peak(measured):
    """6 operations per weight of a matrix product and token, and 12 x width x context per layer (PaLM, appendix B)."""
    attention, mlp, vocab_size = 4 * 32 * 32, 2 * 4 * 32 * 32, measured.module.model.vocab_size
    flops = 6 * (2 * (attention + mlp) + vocab_size * 32) + 2 * 12 * 32 * 16
    expected = [2 * TOKENS / s * flops / PEAK for s in (3, 7, 11)]
    assert measured.record.column("throughput/mfu") == pytest.approx(expected)
    assert measured.callback.peak_name == "by hand"


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_training_loss_is_the_mean_of_the_steps_since_the_last_one(tmp_path, micro_batches):
    options = {"max_steps": 5, "accumulate_grad_batches": micro_batches}
    each, read = (train(tmp_path, log_every_n_steps=n, **options)[2].column("train/loss") for n in (1, 2))
    means = [sum(each[:2]) / 2, sum(each[2:4]) / 2, each[4]]  # the last step is always read
    assert read == pytest.approx(means, abs=1e-6)


def test_the_newest_validation_is_kept(measured):
    names = {"val/loss", "val/bpc", "val/perplexity", "val/accuracy"}
    assert measured.callback.val.keys() == names
    assert all(measured.callback.val[name] == measured.record.column(name)[-1] for name in names)
    assert [row["step"] for row in measured.record.rows if "val/loss" in row] == [3, 6]


def test_a_resumed_run_counts_on(measured):
    resumed = Metrics()
    resumed.load_state_dict(measured.callback.state_dict())
    assert resumed.train_s == pytest.approx(21) and resumed.val == measured.callback.val
