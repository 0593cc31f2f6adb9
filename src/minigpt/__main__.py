"""`minigpt train model=small` is `python src/train.py model=small`; `python -m minigpt` is the same."""

import os
import subprocess
import sys

from minigpt.api import command_line

COMMANDS = ("train", "evaluate", "generate", "export", "report", "playground")
USAGE = 2


def main() -> None:
    """Become the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        asks = name in ("-h", "--help")
        text = f"minigpt {{{'|'.join(COMMANDS)}}} [OPTION=VALUE ...]; minigpt train --help describes the options"
        print(text if asks else f"error: {text}", file=sys.stdout if asks else sys.stderr)
        sys.exit(0 if asks else USAGE)
    command = command_line(name, sys.argv[2:])
    if sys.platform == "win32":  # where a process cannot become another one
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
