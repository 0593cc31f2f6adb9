"""Read prompts line by line, on a terminal or from a pipe."""

import contextlib
import sys
from collections.abc import Callable

SHOWN = "> "


def answer_prompts(answer: Callable[[str], None]) -> None:
    """Call `answer` with each line that is typed, until the input ends (Ctrl-D).

    Ctrl-C ends an answer, or drops the line that is being typed. A line that cannot be answered costs one line on
    standard error. On a terminal, lines can be edited and recalled, where Python has readline.

    Raises:
        ValueError: there is no standard input.
        KeyboardInterrupt: in place of a line from a pipe.
    """
    if sys.stdin is None:
        raise ValueError("interactive=true needs a standard input")
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if on_terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401
    while True:
        try:
            prompt = input(SHOWN if on_terminal else "")
            if prompt.strip():
                answer(prompt)
        except EOFError:
            if on_terminal:
                print()
            return
        except KeyboardInterrupt:
            if not on_terminal:
                raise
            print()
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
