"""`python -m minigpt.synthetic_fallback`: the option that `make train` adds where Tiny Shakespeare cannot be had.

Prints nothing when the text is there or was just downloaded; `data=synthetic` otherwise, with the reason on standard
error.
"""

import os
import sys

import yaml

from minigpt.config.packaged import CONF
from minigpt.data.text_files import locate_or_download


def main() -> None:
    """Look for the text as a run does."""
    text = yaml.safe_load((CONF / "data" / "shakespeare_char.yaml").read_text("utf-8"))
    try:
        locate_or_download(text["url"], os.environ.get("MINIGPT_DATA_DIR", "data"), text["sha256"])
    except ValueError as error:
        print(f"{error}\nContinuing with data=synthetic.", file=sys.stderr)
        print("data=synthetic")


if __name__ == "__main__":
    main()
