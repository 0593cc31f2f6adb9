"""`python -m minigpt.config.offline`: print what `make train` must add where Tiny Shakespeare cannot be had.

Nothing when the text is there or was just downloaded; `data=pocket` otherwise, with the reason on standard error.
"""

import os
import sys

import yaml

from minigpt.config.conf import CONF
from minigpt.data.corpus import find_text


def main() -> None:
    """Look for the text as a run would."""
    text = yaml.safe_load((CONF / "data" / "shakespeare_char.yaml").read_text("utf-8"))
    try:
        find_text(text["path"], os.environ.get("MINIGPT_DATA_DIR", "data"), text["url"], text["sha256"])
    except ValueError as error:
        print(f"{error}\nGoing on with data=pocket.", file=sys.stderr)
        print("data=pocket")


if __name__ == "__main__":
    main()
