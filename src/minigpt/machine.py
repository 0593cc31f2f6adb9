"""Measurements of this machine that choose its fast paths.

A measurement takes milliseconds. It is kept in the user's cache directory, so that one machine always computes in the
same way, however busy it is at the time.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

CACHE = "measurements.json"
ISA_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # which instructions torch may use
REPEATS = 5
WORTHWHILE = 1.1  # a fast path is taken from this speedup on


def measured(name: str, measure: Callable[[], float]) -> float:
    """Return the kept value of a measurement; `measure` is called when there is none yet."""
    path = cache_path()
    known = read_measurements(path)
    here = known.setdefault(machine_key(), {})
    if name not in here:
        here[name] = measure()
        with suppress(OSError):  # without a home directory it is measured each time
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return here[name]


def known_measurements() -> dict[str, float]:
    """Return all measurements of this machine so far, by their names."""
    return read_measurements(cache_path()).get(machine_key(), {})


def cache_path() -> Path:
    """Return the file that measurements are kept in."""
    return Path(platformdirs.user_cache_dir("minigpt", appauthor=False)) / CACHE


def read_measurements(path: Path) -> dict[str, dict[str, float]]:
    """Return the measurements of a file by machine and name; none if there is no such file, or it is damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): {str(n): float(v) for n, v in values.items()} for key, values in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def machine_key() -> str:
    """Return what a measurement depends on: the processor, the instructions that may be used, threads and torch."""
    limits = [f"{name}={os.environ[name]}" for name in ISA_LIMITS if name in os.environ]
    return " ".join((processor_name(), *limits, f"threads={torch.get_num_threads()}", f"torch={torch.__version__}"))


def processor_name() -> str:
    """Return the model name of the processor."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def speedup(baseline: Callable[[], Tensor], candidate: Callable[[], Tensor], calls: int = 1) -> float:
    """Return how many times as fast as `baseline` the function `candidate` is: the ratio of their fastest runs.

    Both run on one thread: on a busy machine several would measure the waiting for each other.

    Args:
        baseline, candidate: the two functions, run in turn.
        calls: calls of a run, many for a function that takes microseconds.
    """
    fastest = {baseline: float("inf"), candidate: float("inf")}
    with one_thread():
        for _ in range(REPEATS):
            for function in fastest:
                begin = time.perf_counter()
                for _ in range(calls):
                    function()
                fastest[function] = min(fastest[function], time.perf_counter() - begin)
    return fastest[baseline] / fastest[candidate]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def bfloat16_speedup() -> float:
    """Return how many times as fast as float32 the processor multiplies matrices in bfloat16."""

    def measure() -> float:
        a, b = torch.randn(2, 256, 256)
        low_a, low_b = a.bfloat16(), b.bfloat16()
        return speedup(lambda: a @ b, lambda: low_a @ low_b, calls=2)

    return measured("bfloat16 product", measure)


def float16_matvec_speedup(rows: int, columns: int) -> float:
    """Return how many times as fast as float32 the processor multiplies a float16 matrix [rows, columns] by a vector.

    The time to convert the vector and the result, which are float32, is included.
    """

    def measure() -> float:
        matrix, vector = torch.randn(rows, columns), torch.randn(columns)
        half = matrix.half()
        return speedup(lambda: torch.mv(matrix, vector), lambda: torch.mv(half, vector.half()).float(), calls=20)

    return measured(f"float16 matvec {rows} x {columns}", measure)
