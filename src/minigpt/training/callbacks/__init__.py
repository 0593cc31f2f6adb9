"""Lightning callbacks: each observes a run from outside. All but Metrics and GracefulStop can be left out."""

from collections.abc import Sequence
from typing import TypeVar

from lightning import Callback, Trainer

from minigpt.training.callbacks.graceful_stop import GracefulStop
from minigpt.training.callbacks.metrics import Metrics

C = TypeVar("C")


def with_required(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks of a configuration, and before them those that every run needs and that it left out."""
    missing = [kind() for kind in (GracefulStop, Metrics) if not any(isinstance(c, kind) for c in callbacks)]
    return [*missing, *callbacks]


def find(trainer: Trainer, kind: type[C]) -> C | None:
    """The trainer's callback or logger of a class; None when there is none."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]  # set by a connector
    return next((c for c in (*callbacks, *trainer.loggers) if isinstance(c, kind)), None)
