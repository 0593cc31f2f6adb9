"""What every request must satisfy, and the headers of every response."""

import asyncio
import ipaddress
import json
from collections.abc import Iterable
from typing import Any, TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minigpt.config.annotations import mismatch
from minigpt.config.signature import read_signature

MAX_BODY_BYTES = 1 << 16
BODY_TIMEOUT_S = 5.0
LOOPBACK_NAMES = {"127.0.0.1", "localhost", "[::1]"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ABANDONED = HTTPException(400, "the client has left")  # an answer that nobody reads
Schema = TypeVar("Schema")


class RequestChecks:
    """Middleware that refuses requests of other sites' pages, and adds `HEADERS`.

    A page elsewhere may send requests to this machine, or give its own name this machine's address (DNS rebinding).
    The browser then names that page in the Origin header, or its name in the Host header.

    Args:
        app: the application.
        host: the address that the server listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        app = self.app
        if len(headers.getlist("host")) != 1 or not self.knows(host):
            app = refusal(421, "the Host header is not that of this server")
        elif origin is not None and origin != f"http://{host}":
            app = refusal(403, "the Origin header is that of another page")
        await app(scope, receive, send_with_headers)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server; where it listens on the network, by any IP address, too."""
        name, colon, port = host.rpartition(":")
        name = (name if colon and port.isdigit() else host).lower()
        if name in LOOPBACK_NAMES:
            return True
        is_local = self.host in ("127.0.0.1", "localhost", "::1")
        return not is_local and (name == self.host.lower() or is_address(name.strip("[]")))


def is_address(name: str) -> bool:
    """Whether a name is an IP address, which no name server can give to another machine."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def refusal(status: int, reason: str) -> JSONResponse:
    """Return the response to a request that is refused."""
    return JSONResponse({"error": reason}, status)


async def read_request(request: Request, schema: type[Schema]) -> Schema:
    """Return the JSON body of a request as an instance of a dataclass, whose annotations it must fit.

    Raises:
        HTTPException: it does not, or it is larger than `MAX_BODY_BYTES`, slower than `BODY_TIMEOUT_S`, or no JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send JSON, with the header Content-Type: application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await read_body(request)
        content = json.loads(body)
    except ClientDisconnect:
        raise ABANDONED from None
    except TimeoutError:
        raise HTTPException(408, f"the request took longer than {BODY_TIMEOUT_S:g} s") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the request is not JSON") from None
    return check_content(content, schema)


async def read_body(request: Request) -> bytes:
    """Return a body, as long as it is no larger than `MAX_BODY_BYTES`; raises HTTPException."""
    too_large = HTTPException(413, f"the request is larger than {MAX_BODY_BYTES >> 10} KiB")
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def check_content(content: Any, schema: type[Schema]) -> Schema:
    """Return plain data as an instance of a dataclass; raises HTTPException for what its annotations do not allow."""
    signature = read_signature(f"{schema.__module__}.{schema.__qualname__}")
    assert signature is not None
    if not isinstance(content, dict):
        raise HTTPException(400, "the request must be a JSON object")
    required = {name for name, parameter in signature.items() if parameter.required}
    for problem, names in (("unknown", content.keys() - signature), ("missing", required - content.keys())):
        if names:
            raise HTTPException(400, f"{problem}: {', '.join(sorted(map(ascii, names)))[:200]}")
    for name, value in content.items():
        reason = "a plain value" if holds_object(value) else mismatch(signature[name], value)
        if reason is not None:
            raise HTTPException(400, f"{name} must be {reason}")
    return schema(**content)


def holds_object(value: Any) -> bool:
    """Whether a value is a JSON object, or a list with one."""
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) for item in items)
