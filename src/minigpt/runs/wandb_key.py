"""Whether there is an account at Weights & Biases, found out without the network."""

import netrc
import os
from pathlib import Path


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
