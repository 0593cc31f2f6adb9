"""A checkpoint that cannot be restored is refused before its run begins to write."""

import copy
from pathlib import Path

import pytest
import torch
from tests.training.test_module import ADAMW, MUON, train

from minigpt.runs.resume import ResumePlan
from minigpt.training.callbacks import find
from minigpt.training.callbacks.metrics import Metrics
from minigpt.training.callbacks.skip_spikes import SkipSpikes
from minigpt.training.restore import check_restorable

LOOPS = ("loops", "fit_loop")
OPTIMIZER = "epoch_loop.automatic_optimization.optim_progress"
MISSING = "(missing)"  # its name is part of a test's, the same in all processes


@pytest.fixture(scope="module", params=[MUON, ADAMW], ids=["muon", "adamw"])
def saved(request, tmp_path_factory):
    """A module and the content of a checkpoint of it."""
    place = tmp_path_factory.mktemp("saved")
    callbacks = [Metrics(), SkipSpikes(sigma=6, window=4)]
    module, *_ = train(place, optimizer=request.param, callbacks=callbacks, async_save=False)
    module.trainer.save_checkpoint(place / "x.ckpt")
    return module, torch.load(place / "x.ckpt", weights_only=True)


def check(saved, path=(), value=None):
    """Check the content with another value, or none, at a path of nested containers."""
    module, content = saved[0], copy.deepcopy(saved[1])
    node = content
    for key in path[:-1]:
        node = node[key]
    if value is MISSING:
        del node[path[-1]]
    elif path:
        node[path[-1]] = value
    check_restorable(ResumePlan(Path("checkpoints/step_3.ckpt"), content, []), module, module.trainer)


def test_what_was_saved_is_accepted_and_nothing_is_changed_by_asking(saved):
    before = {name: tensor.clone() for name, tensor in saved[0].state_dict().items()}
    check(saved)
    check(saved, ("optimizer_states", 0, "state", 0), {})  # a parameter that never had a gradient
    check(saved, ("callbacks", "SkipSpikes"), MISSING)
    assert all(torch.equal(before[name], tensor) for name, tensor in saved[0].state_dict().items())
    assert len(find(saved[0].trainer, SkipSpikes).norms) == 3


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("pytorch-lightning_version",), "1.4.0", "not of Lightning 2"),
        (("pytorch-lightning_version",), [], "not of Lightning 2"),
        (("global_step",), 4, "its name says step 3, and its content says 4"),
        (("global_step",), [3], "its content says"),
        (("global_step",), MISSING, "global_step"),
        (("loops",), {}, "fit_loop"),
        ((*LOOPS, OPTIMIZER, "optimizer", "step", "total", "completed"), 2, "its content says 2"),
        ((*LOOPS, "epoch_loop.batch_progress", "total", "ready"), -1, "ready is a value of type int of another kind"),
        ((*LOOPS, "epoch_loop.batch_progress", "is_last_batch"), 1, "is_last_batch"),
        ((*LOOPS, "epoch_loop.batch_progress", "extra"), 1, "batch_progress"),
        ((*LOOPS, "epoch_progress"), [], "epoch_progress is a value of type list"),
        ((*LOOPS, "state_dict"), {"combined_loader": [{"a": 1}]}, "combined_loader"),
        (("state_dict", "model.head.weight"), MISSING, "1 weights are missing, the first is model.head.weight"),
        (("state_dict", "model.head.weight"), torch.zeros(3), "the weight model.head.weight has the shape"),
        (("optimizer_states",), [], "not the state of one optimizer"),
        (("optimizer_states", 0, "state"), [], "not the state of one optimizer"),
        (("optimizer_states", 0, "state", 0), {"x": torch.zeros(1)}, "parameter 0 does not have"),
        (("optimizer_states", 0, "state", 99), {}, "parameters that the model does not have"),
        (("optimizer_states", 0, "param_groups"), [], "param_groups is a value of type list"),
        (("optimizer_states", 0, "param_groups", 0, "params"), [0], "parameters in a group, and its state not"),
        (("optimizer_states", 0, "param_groups", 0, "lr"), "x", "param_groups.0.lr is a value of type str"),
        (("optimizer_states", 0, "param_groups", 0, "weight_decay"), float("nan"), "weight_decay is nan"),
        (("optimizer_states", 0, "param_groups", 0, "betas"), [0.9], "betas"),
        (("lr_schedulers",), [], "lr_schedulers is a value of type list"),
        (("optimizer_states", 0, "param_groups", 0, "role"), MISSING, "param_groups.0 does not have role"),
        (("lr_schedulers", 0, "lr_lambdas"), MISSING, "lr_lambdas"),
        (("lr_schedulers", 0, "last_epoch"), MISSING, "its schedule says 0"),
        (("lr_schedulers", 0, "last_epoch"), 7, "its schedule says 7"),
        (("lr_schedulers", 0, "last_epoch"), "3", "last_epoch is a value of type str"),
        (("lr_schedulers", 0, "optimizer"), 1, "lr_schedulers.0"),
        (("lr_schedulers", 0, "lr_lambdas"), [{"x": 1}, {}, {}], "lr_lambdas"),
        (("callbacks",), {1: {}}, "not states by their names"),
        (("callbacks", "Metrics"), {"train_s": "x", "val": {}}, "state of Metrics"),
        (("callbacks", "Metrics"), [], "state of Metrics"),
        (("callbacks", "SkipSpikes", "norms"), ["x"], "norms must be finite numbers"),
    ],
    ids=str,
)
def test_anything_else_is_refused(saved, path, value, says):
    with pytest.raises(ValueError, match=says) as refusal:
        check(saved, path, value)
    assert "\n" not in str(refusal.value) and str(refusal.value).startswith("checkpoints/step_3.ckpt cannot be resumed")


@pytest.mark.parametrize("value", [torch.tensor(torch.nan), "x", torch.zeros(2, 2), torch.zeros(5, dtype=torch.int64)])
def test_the_optimizer_s_tensors_have_the_shapes_of_their_parameters(saved, value):
    state = saved[1]["optimizer_states"][0]["state"]
    for number, name in ((0, next(iter(state[0]))), (len(state) - 1, "exp_avg")):
        with pytest.raises(ValueError, match=f"the optimizer's {name} of parameter {number}"):
            check(saved, ("optimizer_states", 0, "state", number, name), value)
