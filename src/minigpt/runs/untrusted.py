"""Read small files that anybody may have written: regular files of bounded size, parsed as plain data of bounded depth.

A run directory may come from anybody, and may be damaged. So each file in it is read here, and what is used of its
content is checked by the reader of that file.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

MAX_DATA_BYTES = 1 << 18  # of JSON and YAML; PyYAML takes seconds for more, a configuration has some kilobytes
MAX_TEXT_BYTES = 1 << 26
MAX_DEPTH = 50
MAX_VALUES = 2_000_000
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml is ten times as fast


class UntrustedFileError(ValueError):
    """A file that cannot be used; the message says what is wrong with it."""


def check_regular(path: Path) -> None:
    """Raise UntrustedFileError for what is not a regular file, such as a pipe, whose reading may never end."""
    if not path.is_file():
        kind = "is not a regular file" if os.path.lexists(path) else "does not exist"
        raise UntrustedFileError(f"{path} {kind}")


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Return the text of a regular UTF-8 file.

    Raises:
        UntrustedFileError: it is not such a file, or is larger than `max_bytes`.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UntrustedFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise UntrustedFileError(f"{path} is damaged: it has more than {max_bytes:,} bytes")
    if b"\0" in content:
        raise UntrustedFileError(f"{path} is damaged: it has NUL bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UntrustedFileError(f"{path} is damaged: it is not UTF-8 (byte {error.start})") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file.

    Raises:
        UntrustedFileError: it cannot be read, or holds something else.
    """
    text = read_text(path, MAX_DATA_BYTES)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UntrustedFileError(f"{path} is damaged: {first_line(error)}") from error
    return check_mapping(value, path)


def read_yaml(path: Path) -> Any:
    """Return the plain data of a YAML file, which has neither aliases nor tags.

    Raises:
        UntrustedFileError: it cannot be read, or holds something else.
    """
    text = read_text(path, MAX_DATA_BYTES)
    try:
        check_events(text, path)
        return check_plain(yaml.load(text, SAFE_LOADER), str(path))
    except UntrustedFileError:
        raise
    except Exception as error:  # a malformed number, date or tag makes the parser raise any kind of error
        raise UntrustedFileError(f"{path} is damaged: {first_line(error)}") from error


def check_events(text: str, path: Path) -> None:
    """Raise UntrustedFileError for YAML with aliases, or so deep that building it would exhaust the stack."""
    depth = 0
    for event in yaml.parse(text, SAFE_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UntrustedFileError(f"{path} has YAML aliases, which can make a small file very large")
        if depth > MAX_DEPTH:
            raise UntrustedFileError(f"{path} is damaged: it is nested more than {MAX_DEPTH} levels deep")


def check_mapping(value: Any, source: Path | str) -> dict[str, Any]:
    """Return plain data that is a mapping; raise UntrustedFileError for anything else."""
    if not isinstance(value, dict):
        raise UntrustedFileError(f"{source} is damaged: it holds {describe(value)} instead of keys and values")
    return check_plain(value, source)


def check_plain(value: Any, source: Path | str) -> Any:
    """Return a value that consists of mappings with text keys, lists, text, 64-bit integers, floats, booleans and null.

    Raises:
        UntrustedFileError: it has anything else in it, is nested too deeply, or has too many values. One object that
            stands in many places counts as often, since whoever walks through it meets it as often.
    """
    remaining, level = MAX_VALUES, [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                check_keys(item, source)
                children: Iterable[Any] = item.values()
            elif isinstance(item, list | tuple):
                children = item
            else:
                check_scalar(item, source)
                continue
            remaining -= len(item)
            if remaining < 0:
                raise UntrustedFileError(f"{source} is damaged: it has more than {MAX_VALUES:,} values")
            deeper.extend(children)
        if not deeper:
            return value
        level = deeper
    raise UntrustedFileError(f"{source} is damaged: it is nested more than {MAX_DEPTH} levels deep")


def check_keys(mapping: Mapping[Any, Any], source: Path | str) -> None:
    """Raise UntrustedFileError for a key that is not text."""
    for key in mapping:
        if not isinstance(key, str):
            raise UntrustedFileError(f"{source} is damaged: it has {describe(key)} as a key")


def check_scalar(value: Any, source: Path | str) -> None:
    """Raise UntrustedFileError for what is neither text, number, boolean nor null."""
    if not isinstance(value, str | bool | int | float | None):
        raise UntrustedFileError(f"{source} is damaged: it holds {describe(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UntrustedFileError(f"{source} is damaged: it has an integer of more than 64 bits")


def check_types(values: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], source: Path | str) -> None:
    """Check those of the named values that are present. A bool is no number, and numbers are finite.

    Raises:
        UntrustedFileError: one has another type.
    """
    for name in values.keys() & types.keys():
        value, wanted = values[name], types[name]
        fits = isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool))
        if not fits or (isinstance(value, float) and not math.isfinite(value)):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in wanted)
            raise UntrustedFileError(f"{source} is damaged: {name} is {describe(value)} instead of {names}")


def describe(value: Any) -> str:
    """Return a value's kind for a message: `null`, a short number, or the name of its type."""
    if value is None:
        return "null"
    if isinstance(value, bool | float):
        return repr(value)
    return f"a value of type {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type when it has none."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
