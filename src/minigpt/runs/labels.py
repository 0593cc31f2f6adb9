"""How a run is shown to people: a short name for what makes it differ, and its options as they are typed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Options that do not change what is trained.
UNNAMED = ("paths", "logger", "hydra", "resume", "ignore_fingerprint", "quiet", "tags", "reference_loss")
MAX_VALUE_CHARS, MAX_NAME_CHARS = 40, 100


def short_name(overrides: Sequence[str]) -> str:
    """`optimizer=muon lr=0.01` for `optimizer=muon optimizer.lr=0.01 paths.log_dir=...`; empty when nothing is left.

    The value of `name=` comes first, by itself. An option has its full name where another one ends alike.
    """
    typed = [override.partition("=")[::2] for override in overrides]
    typed = [(key.lstrip("+"), value) for key, value in typed if top_level(key) not in UNNAMED]
    endings = Counter(last_part(key) for key, _ in typed)
    words = [shorten(value) for key, value in typed if key == "name"]
    for key, value in typed:
        if key != "name":
            label = last_part(key) if endings[last_part(key)] == 1 else key
            words.append(f"{label}={shorten(value)}" if value else label)
    return shorten(" ".join(words), MAX_NAME_CHARS)


def readable_config(config: Mapping[str, Any], choices: Mapping[str, Any]) -> dict[str, Any]:
    """Each choice of a group and each value of an option under the name by which it is typed.

    `_target_` and the like, options that change nothing about the training, and those without a value are left out.
    """
    chosen = {group: choice for group, choice in choices.items() if choice and top_level(group) not in UNNAMED}
    return chosen | {key: value for key, value in options(config) if top_level(key) not in (*UNNAMED, "name")}


def options(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options with a value in a nested configuration, by their dotted names."""
    for path, value in flatten(config):
        name = path.rpartition(".")[2]
        if value is not None and not name.startswith("_") and not name.endswith("_dir"):
            yield path, value


def flatten(config: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a nested configuration with its dotted name."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{place}{key}.")
        else:
            yield f"{place}{key}", value


def top_level(key: str) -> str:
    """`data` for `data`, `+data.path` and `data/tokenizer`."""
    return key.lstrip("+~").replace("/", ".").partition(".")[0]


def last_part(key: str) -> str:
    """`lr` for `optimizer.lr`, `attention` for `model/attention`; `~` stays."""
    prefix = "~" if key.startswith("~") else ""
    return prefix + key.lstrip("~").replace("/", ".").rpartition(".")[2]


def shorten(text: str, length: int = MAX_VALUE_CHARS) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
