"""What the Trainer is built with: Lightning's own constructor takes it all."""

import lightning
import pytest
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from minigpt.training.trainer import Trainer, make_strategy


@pytest.fixture
def passed(monkeypatch):
    """What the Trainer passes on to Lightning's for some options."""

    def build(**options):
        found = {}
        monkeypatch.setattr(lightning.Trainer, "__init__", lambda self, **passed: found.update(passed))
        plain = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": "32-true", "timeout_s": 60.0}
        Trainer(**plain | {"max_steps": 7, "accumulate_grad_batches": 1, "val_every_n_steps": 5} | options)
        return found

    return build


def test_options_have_lightnings_names_and_count_optimizer_steps(passed):
    found = passed(accumulate_grad_batches=3, log_every_n_steps=4, gradient_clip_val=0.5, deterministic=True)
    own = {"max_steps": 7, "val_check_interval": 15, "accumulate_grad_batches": 3, "log_every_n_steps": 4}
    own |= {"gradient_clip_val": 0.5, "deterministic": True, "devices": 1, "num_nodes": 1, "precision": "32-true"}
    fixed = {"max_epochs": -1, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
    off = ("use_distributed_sampler", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    expected = own | fixed | dict.fromkeys(off, False)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("num_nodes", "kind"), [(1, str), (2, DDPStrategy)])
def test_several_machines_train_together_without_a_word(passed, num_nodes, kind):
    found = passed(num_nodes=num_nodes)
    assert isinstance(found["strategy"], kind) and found["num_nodes"] == num_nodes


def test_ranks_wait_for_each_other_as_long_as_they_are_told():
    ddp, sharded = (make_strategy(name, 2, 90.0) for name in ("ddp", "fsdp"))
    assert isinstance(ddp, DDPStrategy) and isinstance(sharded, ModelParallelStrategy)
    assert ddp._timeout.total_seconds() == 90 and sharded._timeout.total_seconds() == 90
    assert sharded._data_parallel_size == 2 and sharded._tensor_parallel_size == 1
    assert not sharded._save_distributed_checkpoint
    assert make_strategy("auto", 1, 90.0) == "auto" and isinstance(make_strategy("auto", 2, 90.0), DDPStrategy)


def test_what_lightning_refuses_is_one_line_with_the_option_s_name(monkeypatch):
    def refuse(self, **passed):
        raise TypeError("no such option\nand a second line")

    monkeypatch.setattr(lightning.Trainer, "__init__", refuse)
    options = {"accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": "32-true", "timeout_s": 60.0}
    options |= {"max_steps": 7, "accumulate_grad_batches": 1, "val_every_n_steps": 5}
    with pytest.raises(ValueError, match=r"^trainer: no such option$"):
        Trainer(**options)
    with pytest.raises(ValueError, match=r"trainer.max_epochs is set by miniGPT itself"):
        Trainer(**options, max_epochs=3)
