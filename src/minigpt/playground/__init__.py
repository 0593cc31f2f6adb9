"""A local web page that shows the inside of a trained model for the text that is typed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

LIBRARIES = ("starlette", "uvicorn")  # the extra `playground`


def load_server() -> Callable[[dict[str, Any], frozenset[str]], None]:
    """Return `minigpt.playground.server.serve`.

    Raises:
        ValueError: the web server is not installed.
    """
    if not all(map(find_spec, LIBRARIES)):
        raise ValueError(
            "the playground needs Starlette and uvicorn: pip install -c constraints.txt -e '.[playground]'"
        )
    from minigpt.playground.server import serve

    return serve
