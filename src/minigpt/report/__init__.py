"""A report of runs: one HTML page that needs no network, and its figures as PNG and SVG."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("altair", "vl_convert", "jinja2")  # the extra `report`


def load_writer() -> Callable[..., Path]:
    """Return `minigpt.report.page.write_report`.

    Raises:
        ValueError: the plotting libraries are not installed.
    """
    if not all(map(find_spec, LIBRARIES)):
        raise ValueError("a report needs Altair and vl-convert: pip install -c constraints.txt -e '.[report]'")
    from minigpt.report.page import write_report

    return write_report
