"""No process of a run outlives it: what happens when one of several dies or hangs."""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GRACE_S = 15.0  # for the first process to write its summary and leave


def is_started_by_run() -> bool:
    """Whether the first process of this run started this one, and not torchrun or Slurm."""
    external = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "GROUP_RANK")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not any(name in os.environ for name in external)


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends, however that happens. Linux alone."""
    if is_started_by_run() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_others(trainer: Any) -> None:
    """After a failure: end the processes that the first one started; or the first one, should it be stuck itself."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        with suppress(ProcessLookupError):
            process.kill()  # it may hang in a call that no other signal ends
    if is_started_by_run():
        time.sleep(GRACE_S)  # the first process ends us as soon as it has concluded the run
        with suppress(ProcessLookupError):
            os.kill(os.getppid(), signal.SIGKILL)
