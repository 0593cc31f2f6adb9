"""What the packaged configuration offers: its groups, and the constructors that it names."""

import functools
import re
from pathlib import Path

CONF = Path(__file__).parents[3] / "conf"


def groups() -> list[str]:
    """The configuration groups, such as `model` and `model/attention`."""
    return sorted(str(d.relative_to(CONF)) for d in CONF.rglob("*") if d.is_dir() and any(d.glob("*.yaml")))


@functools.cache
def targets() -> frozenset[str]:
    """Every `_target_` of the packaged files. No other name is ever built."""
    pattern = re.compile(r"^\s*_target_:\s*(\S+)\s*$", re.MULTILINE)
    files = (file for file in CONF.rglob("*.yaml") if "hydra" not in file.parts)
    return frozenset(name for file in files for name in pattern.findall(file.read_text("utf-8")))
