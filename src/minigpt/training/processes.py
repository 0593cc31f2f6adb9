"""No process of a run outlives it, even when one of several dies or hangs."""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GRACE_S = 15.0  # for rank 0 to write the summary and exit


def is_started_by_run() -> bool:
    """Whether the first process of this run started this one, and not torchrun or Slurm."""
    external = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "GROUP_RANK")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not any(name in os.environ for name in external)


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends, however that happens. Linux only."""
    if is_started_by_run() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_other_ranks(trainer: Any) -> None:
    """After a failure: kill the processes that rank 0 started; or rank 0, if it is stuck itself."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        with suppress(ProcessLookupError):
            process.kill()  # it may hang in a call that no other signal ends
    if is_started_by_run():
        time.sleep(GRACE_S)  # rank 0 kills this process as soon as it has written the summary
        with suppress(ProcessLookupError):
            os.kill(os.getppid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows SIGTERM kills
