"""How nested options become the constructor of a model."""

import functools
from collections.abc import Callable, Mapping
from typing import Any


def assemble(node: Mapping[str, Any], find: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """Return the constructor that a `_target_` and its options describe, nested components included.

    Args:
        node: a `_target_` and its options, as in the configuration.
        find: returns the class of a `_target_`.
    """
    options = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    options = {key: assemble(value, find) if isinstance(value, dict) else value for key, value in options.items()}
    return functools.partial(find(node["_target_"]), **options)
