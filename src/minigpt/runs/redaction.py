"""What must never be saved or logged: keys of the environment, and passwords in addresses."""

import os
import re
from typing import Any

SECRET_NAME = re.compile(r"(key|token|secret|password|passwd|credential)s?$", re.IGNORECASE)
URL_PASSWORD = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
URL_KEY = re.compile(r"(?<=[?&])([\w-]*(?:key|token|secret|password|signature)=)[^&\s'\"]+", re.IGNORECASE)
HIDDEN = "(hidden)"


def redact(value: Any) -> Any:
    """Text, or nested plain data, without the secrets in it."""
    if isinstance(value, str):
        for secret in secrets():
            value = value.replace(secret, HIDDEN)
        return URL_KEY.sub(rf"\1{HIDDEN}", URL_PASSWORD.sub(HIDDEN, value))
    if isinstance(value, dict):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def secrets() -> list[str]:
    """The values of environment variables that are named like secrets; shorter ones would hide ordinary words."""
    return [value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= 8]
