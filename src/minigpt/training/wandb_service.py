"""Whether Weights & Biases can be reached, and how it starts quickly."""

import http.client
import netrc
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.parse import urlparse

PROBE_TIMEOUT_S = 1.5  # for a server to answer at all


@contextmanager
def without_launch() -> Iterator[None]:
    """Keep `wandb.init` from importing W&B Launch, which takes a second, for inputs that nobody has staged."""
    name = "wandb.sdk.launch.inputs.internal"
    if name in sys.modules:  # something has used it
        yield
        return
    stand_in = ModuleType(name)
    vars(stand_in)["StagedLaunchInputs"] = lambda: SimpleNamespace(apply=lambda run: None)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def resolve_mode(mode: str) -> str:
    """online or offline for `auto`: online only with a key and a server that is_reachable soon.

    wandb itself would wait 90 seconds for a server that does not answer, and then fail the run.
    """
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    url = wandb.setup().settings.base_url
    if not has_api_key(urlparse(url).hostname or ""):
        return "offline"
    answer: list[bool] = []
    probe = threading.Thread(target=lambda: answer.append(is_reachable(url)), daemon=True)
    probe.start()
    probe.join(PROBE_TIMEOUT_S)  # a name look-up may take longer than any time-out of a connection
    return "online" if any(answer) else "offline"


def has_api_key(host: str) -> bool:
    """Whether there is a key for a W&B server. `wandb.login` knows too, but takes five seconds without a network."""
    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for p in (Path(place).expanduser() for place in places if place) if p.is_file()), None)
    try:
        return path is not None and netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def is_reachable(url: str) -> bool:
    """Whether a web server is_reachable at all."""
    try:
        urllib.request.urlopen(url, timeout=PROBE_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return True
