"""The results of fault tests."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Result:
    """The number of trials that passed, out of how many, and a note on the others."""

    good: int
    of: int
    note: str = ""


@dataclass
class Row:
    """A row of the table: one fault, the result of miniGPT and that of the baseline."""

    fault: str
    ours: Result
    baseline_name: str
    baseline: Result | None  # None if the baseline was not run

    def holds(self) -> bool:
        """Whether miniGPT passed all trials, and the baseline failed at least one."""
        return self.ours.good == self.ours.of and (self.baseline is None or self.baseline.good < self.baseline.of)

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self) | {"holds": self.holds()}


def count_passed(failures: Iterable[str]) -> Result:
    """Count the trials without a failure.

    Args:
        failures: one message per trial, empty if the trial passed.
    """
    failures = list(failures)
    messages = [message for message in failures if message]
    return Result(len(failures) - len(messages), len(failures), "; ".join(sorted(set(messages)))[:600])
