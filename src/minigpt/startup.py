"""What a command does before anything heavy is imported: it says that it starts, and prepares torch's threads."""

import os
import sys

from minigpt.runs.directory import is_rank_zero

SPIN_COUNT = 1000  # iterations, some microseconds; 10,000 are too many on a busy machine (docs/notebook.md)


def limit_spinning() -> None:
    """Let OpenMP's threads wait for work by sleeping instead of spinning for milliseconds.

    On a machine that others load too, a spinning thread takes the core from the thread that it waits for: a training
    step then takes ten times as long instead of twice. GNU's OpenMP, which torch uses on Linux, reads the variable when
    torch is loaded. A choice of the user's own stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


class StartNotice:
    """A line on the terminal while a command checks its options and imports torch; erased before anything else."""

    def __init__(self) -> None:
        self.is_shown = False

    def show(self) -> None:
        """Print the line on a terminal, unless a flag such as --help, or quiet, is asked for."""
        is_unwanted = any(argument.startswith("-") or argument == "quiet=true" for argument in sys.argv[1:])
        is_dumb = os.environ.get("TERM", "") in ("dumb", "unknown")  # it cannot erase
        if sys.stderr.isatty() and is_rank_zero() and not is_unwanted and not is_dumb:
            print("miniGPT is starting ...", end="", file=sys.stderr, flush=True)
            self.is_shown = True

    def clear(self) -> None:
        """Erase the line."""
        if self.is_shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self.is_shown = False
