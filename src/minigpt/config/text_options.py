"""Options that hold a text or a path: the command line takes their values as they are typed.

Hydra's grammar would read `prompt=To be, or not to be` as a sweep, `prompt=Who's there?` as an open quote and
`run=2026` as a number. All other options keep that grammar.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from minigpt.config.schema import LISTS, PATHS, TEXTS

SWEEP = object()  # the value of an override with several values
UNREADABLE = object()  # the value of an override that Hydra's grammar does not have


def quote_text_options(overrides: Iterable[str], multirun: bool = False) -> list[str]:
    """The overrides of a command line, those of `TEXTS` and `PATHS` quoted where Hydra would not read them as typed.

    A value that is wholly enclosed in quotes, as Hydra's documentation advises, is the text between them.

    Args:
        overrides: as typed, `key=value`.
        multirun: whether `-m` was given; commas then separate the values of a sweep.
    """
    return [quote_override(override, multirun) for override in overrides]


def quote_override(override: str, multirun: bool) -> str:
    """One override of `quote_text_options`."""
    key, equals, typed = override.partition("=")
    option = key.lstrip("+")
    if not equals or option not in TEXTS | PATHS:
        return override
    value = read(override)
    if (
        isinstance(value, QuotedString)
        or (multirun and value is SWEEP)
        or (option in LISTS and isinstance(value, list))
    ):
        return override
    text = typed
    if option in PATHS:
        if value is None:
            return override
        text = expand_home(typed)
    elif "${" in typed:
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", typed)  # OmegaConf's own escape of an interpolation
    return override if value == text else f"{key}={QuotedString(text, Quote.single).with_quotes()}"


def read(override: str) -> Any:
    """What Hydra's grammar reads as the value of an override."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return UNREADABLE
    if parsed.is_sweep_override():
        return SWEEP
    # `value()` would drop the quotes
    return QuotedString("", Quote.single) if is_quoted(parsed.get_value_element_as_str()) else parsed.value()


def is_quoted(element: str) -> bool:
    """Whether a value, as Hydra writes it, is a quoted text."""
    return element[:1] in ("'", '"')


def expand_home(path: str) -> str:
    """A path with `~` in place of the home directory: shells expand it at the start of a word alone."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") and "/" in path else path
    except RuntimeError:  # there is no such user
        return path
