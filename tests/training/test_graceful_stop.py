"""How a run ends when it is told to: after the step, on all devices alike, and not in the middle of one."""

import signal
from types import SimpleNamespace

import pytest
import torch

from minigpt.training.callbacks.graceful_stop import GracefulStop


@pytest.fixture
def trainer():
    """A Trainer after its fourth step of ten."""
    return SimpleNamespace(
        **{"global_step": 4, "max_steps": 10, "world_size": 1, "accumulate_grad_batches": 1, "log_every_n_steps": 5},
        is_global_zero=True, should_stop=False, limit_val_batches=1.0,
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
    )  # fmt: skip


def finish(trainer, received=None, device="cpu", batch_idx=3):
    callback = GracefulStop()
    callback.received = received
    callback.on_train_batch_end(trainer, SimpleNamespace(device=torch.device(device)), {}, (), batch_idx)
    return callback


def test_a_run_goes_on_until_it_is_told_to_stop(trainer):
    finish(trainer)
    assert not trainer.should_stop and trainer.limit_val_batches == 1
    finish(trainer, signal.SIGTERM)
    assert trainer.should_stop and trainer.limit_val_batches == 0, "the sender does not wait for a validation"


def test_the_last_step_is_validated(trainer):
    trainer.global_step = 10
    finish(trainer)
    assert trainer.should_stop and trainer.limit_val_batches == 1


def test_a_step_is_finished_before_the_run_stops(trainer):
    trainer.accumulate_grad_batches = 2
    finish(trainer, signal.SIGTERM, batch_idx=4)
    assert not trainer.should_stop
    finish(trainer, signal.SIGTERM, batch_idx=5)
    assert trainer.should_stop


@pytest.mark.parametrize(("others", "stops"), [(0, False), (15, True)])
def test_all_devices_stop_when_one_is_told_to(trainer, others, stops):
    asked = []

    def reduce(value, reduce_op):
        asked.append((value.item(), reduce_op))
        return torch.maximum(value, torch.tensor(others))

    trainer.world_size, trainer.strategy.reduce = 2, reduce
    assert finish(trainer).received == (15 if stops else None)
    assert trainer.should_stop is stops and asked == [(0, "max")]


def test_gpus_agree_only_in_steps_in_which_they_wait_anyway(trainer):
    asked = []
    trainer.world_size = 2
    trainer.strategy.reduce = lambda value, reduce_op: asked.append(trainer.global_step) or torch.tensor(15)
    for trainer.global_step in range(1, 9):
        finish(trainer, device="meta")
    assert asked == [5]


def test_handlers_are_put_back(trainer):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    callback = GracefulStop()
    callback.on_train_start(trainer, None)
    assert signal.getsignal(signal.SIGTERM) == callback.receive == signal.getsignal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert callback.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "a second one ends the run at once"
    callback.teardown(trainer, None, "fit")
    assert {number: signal.getsignal(number) for number in before} == before
