"""Check that a checkpoint can be restored, before its run begins to write: nothing is lost when it cannot.

Whatever Lightning restores later is compared here with what this run would save itself. A checkpoint with a valid
checksum may still hold anything.
"""

import copy
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning import Callback
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from minigpt.runs.checkpoint_content import check_finite, check_weights
from minigpt.runs.resume import ResumePlan
from minigpt.runs.untrusted import describe, first_line
from minigpt.training.module import LanguageModel
from minigpt.training.optimizers import parameter_groups
from minigpt.training.trainer import Trainer

LIGHTNING_VERSION = re.compile(r"2\.\d{1,4}[\w.+]{0,20}")  # Lightning would convert older states


def check_restorable(plan: ResumePlan, module: LanguageModel, trainer: Trainer) -> None:
    """Raises ValueError if the weights, the progress or a state in a checkpoint cannot be restored into a run."""
    content = plan.content
    try:
        check_progress(content, plan.step, trainer)
        check_weights(content["state_dict"], module.state_dict())
        optimizer = module.optimizer(parameter_groups(module.model))
        check_optimizer(content["optimizer_states"], optimizer, module)
        check_schedule(content["lr_schedulers"], LambdaLR(optimizer, lambda step: 1.0), plan.step)
        check_callbacks(content["callbacks"], trainer.callbacks)  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # a file that may hold anything makes torch and Lightning raise any kind of error
        raise ValueError(f"{plan.checkpoint} cannot be resumed: {first_line(error)}") from error


def check_progress(content: dict[str, Any], step: int, trainer: Trainer) -> None:
    """Raises ValueError unless a checkpoint says everywhere that it is of one step."""
    if not LIGHTNING_VERSION.fullmatch(str(content.get("pytorch-lightning_version"))):
        raise ValueError("it is not of Lightning 2")
    own = trainer.fit_loop.state_dict()
    own["state_dict"] = {"combined_loader": [{}]}
    check_like(content["loops"], {"fit_loop": own}, "loops", others=True)
    progress = content["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    for saved in (content["global_step"], progress["optimizer"]["step"]["total"]["completed"]):
        if type(saved) is not int or saved != step:
            raise ValueError(f"its name says step {step}, and its content says {saved!r}")


def check_optimizer(states: list[Any], optimizer: torch.optim.Optimizer, module: LanguageModel) -> None:
    """Raises ValueError unless the saved states are those of an optimizer."""
    if len(states) != 1 or not isinstance(states[0], dict) or not isinstance(states[0].get("state"), dict):
        raise ValueError("optimizer_states is not the state of one optimizer")
    saved, groups = states[0], optimizer.param_groups
    own = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    check_like(saved.get("param_groups"), own, "param_groups", others=True)
    named: dict[Any, Tensor] = dict(
        module.named_parameters(remove_duplicate=False)
    )  # a sharded state has names instead of numbers
    known: set[Any] = set()
    for group, theirs, example in zip(groups, saved["param_groups"], example_states(module), strict=True):
        ids = theirs.get("params")
        if not isinstance(ids, list) or len(ids) != len(group["params"]):
            raise ValueError(f"the optimizer has {len(group['params'])} parameters in a group, and its state not")
        for number, parameter in zip(ids, group["params"], strict=True):
            if not isinstance(number, int | str):
                raise ValueError(f"the optimizer's state has {describe(number)} for a parameter")
            shape = named[number].shape if number in named else parameter.shape
            check_parameter_state(saved["state"].get(number, {}), example, shape, f"parameter {number}")
            known.add(number)
    if saved["state"].keys() - known:
        raise ValueError("the optimizer's state has parameters that the model does not have")
    optimizer.load_state_dict(saved)  # which adds the options that an older version of torch did not have
    for number, (group, options) in enumerate(zip(optimizer.param_groups, own, strict=True)):
        if missing := sorted(options.keys() - group.keys()):
            raise ValueError(f"param_groups.{number} does not have {', '.join(missing)}")


def check_schedule(states: list[Any], schedule: LambdaLR, step: int) -> None:
    """Raises ValueError unless the saved states are those of one schedule after `step` steps."""
    own = schedule.state_dict() | {"lr_lambdas": [{} for _ in schedule.lr_lambdas]}  # as of a method
    check_like(states, [own], "lr_schedulers")
    schedule.load_state_dict(copy.deepcopy(states[0]))
    if schedule.last_epoch != step:
        raise ValueError(f"its name says step {step}, and its schedule says {schedule.last_epoch}")


def example_states(module: LanguageModel) -> Iterator[dict[str, tuple[Any, torch.Size]]]:
    """For each group, what an optimizer keeps of one parameter, by name, and that parameter's shape.

    Found out by a step of a new optimizer on copies of the smallest parameters.
    """
    groups = parameter_groups(module.model)
    for group in groups:
        # The state of a scalar would not tell what has a parameter's shape from what is one number for all.
        smallest = min(group["params"], key=lambda p: (p.ndim == 0, p.numel())).detach().clone().requires_grad_()
        smallest.grad = torch.zeros_like(smallest)
        group["params"] = [smallest]
    optimizer = module.optimizer(groups)
    optimizer.step(lambda: 0.0)  # some need a closure
    for group in optimizer.param_groups:
        parameter = group["params"][0]
        yield {name: (value, parameter.shape) for name, value in optimizer.state[parameter].items()}


def check_parameter_state(
    state: Any, example: Mapping[str, tuple[Any, torch.Size]], shape: torch.Size, name: str
) -> None:
    """Raises ValueError unless the state of a parameter has the entries of the example, in its own shape.

    A parameter that never had a gradient has no state.
    """
    if not isinstance(state, dict) or (state and state.keys() != example.keys()):
        raise ValueError(f"the optimizer's state of {name} does not have {', '.join(example)}")
    for key, value in state.items():
        wanted, example_shape = example[key]
        if not isinstance(wanted, Tensor):
            check_like(value, wanted, f"the optimizer's {key} of {name}")
            continue
        if not isinstance(value, Tensor) or value.is_floating_point() != wanted.is_floating_point():
            raise ValueError(f"the optimizer's {key} of {name} is {describe(value)}")
        expected = shape if wanted.shape == example_shape else wanted.shape
        if value.shape != expected:
            raise ValueError(f"the optimizer's {key} of {name} has the shape {list(value.shape)}, not {list(expected)}")
        check_finite(f"the optimizer's {key} of {name}", value)


def check_callbacks(states: Any, callbacks: list[Callback]) -> None:
    """Raises ValueError for a state that a copy of its callback does not take."""
    if not isinstance(states, dict) or not all(isinstance(key, str) for key in states):
        raise ValueError("callbacks are not states by their names")
    for callback in callbacks:
        if (state := states.get(callback.state_key)) is not None:
            try:
                copy.copy(callback).load_state_dict(copy.deepcopy(state))
            except Exception as error:  # each callback has its own way
                raise ValueError(f"the state of {callback.state_key} is not one ({first_line(error)})") from error


def check_like(saved: Any, own: Any, name: str, others: bool = False) -> None:
    """Raises ValueError unless a saved value has the structure and the types of one of this run.

    Counts are not negative, and numbers are finite. Keys may be missing, as in a state of an older version.

    Args:
        saved: any value.
        own: what this run would save itself; None for anything.
        name: of the value, for the message.
        others: whether the outermost mapping, or those of a list, may have more keys.
    """
    if isinstance(own, dict):
        fits = isinstance(saved, dict) and (others or saved.keys() <= own.keys())
        for key in own.keys() & saved.keys() if fits else ():
            check_like(saved[key], own[key], f"{name}.{key}")
    elif isinstance(own, list | tuple):
        fits = isinstance(saved, list | tuple) and len(saved) == len(own)
        for index, value in enumerate(saved if fits else ()):
            check_like(value, own[index], f"{name}.{index}", others)
    elif isinstance(own, bool | str):
        fits = type(saved) is type(own)
    elif isinstance(own, int):
        fits = isinstance(saved, int) and not isinstance(saved, bool) and 0 <= saved < 2**53
    elif isinstance(own, float):
        fits = isinstance(saved, int | float) and not isinstance(saved, bool) and math.isfinite(saved)
    else:
        fits = True
    if not fits:
        raise ValueError(f"{name} is {describe(saved)} of another kind than this run's")
