"""Start the web server of the playground on this machine, and open its page."""

import errno
import os
import socket
import sys
import webbrowser
from collections.abc import Mapping
from typing import Any

import uvicorn

from minigpt.playground.connections import TimedProtocol
from minigpt.playground.run_checkpoints import RunCheckpoints
from minigpt.playground.web_app import make_app

NUM_PORTS = 20  # that are tried, one after the other
SHUTDOWN_S = 2
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(config: dict[str, Any], trusted: frozenset[str]) -> None:
    """Load a model and serve its page until a signal ends the process.

    Args:
        config: the options of conf/playground.yaml.
        trusted: classes outside of miniGPT that the user has named, which the model may have.

    Raises:
        ValueError: there is no such model, or no port is free.
    """
    host = config["host"]
    checkpoints = RunCheckpoints(config["run"], config["paths"]["runs_dir"], config["device"], trusted)
    listener = listen(host, config["port"])
    url = page_url(host, listener.getsockname()[1])
    if host not in LOOPBACK:
        print(f"warning: host={host}: whoever reaches this machine over the network can use the page", file=sys.stderr)
    print(f"playground  {url}  (Ctrl-C ends it)", flush=True)
    if config["open_browser"] and has_display(os.environ, sys.platform) and sys.stdout.isatty():
        webbrowser.open(url)
    make_server(checkpoints, host).run(sockets=[listener])


def make_server(checkpoints: RunCheckpoints, host: str) -> uvicorn.Server:
    """Return the server of the page, for a socket that listens on `host`."""
    return uvicorn.Server(
        uvicorn.Config(
            make_app(checkpoints, host),
            http=TimedProtocol,
            ws="none",
            lifespan="off",
            log_level="critical",  # a client that misbehaves costs no line on the terminal
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the first free port of `NUM_PORTS` from `port` on; 0 is any free one.

    Raises:
        ValueError: there is none, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = min(port + NUM_PORTS, 1 << 16) - 1 if port else 0
    for number in range(port, last + 1):
        listener = socket.socket(family)
        try:
            if os.name == "posix":  # elsewhere this would share the port with another server
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, number))
            listener.listen(socket.SOMAXCONN)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise ValueError(f"cannot listen on host={host} port={number}: {error.strerror}") from error
    raise ValueError(f"the ports {port} to {last} of {host} are taken: choose another one with port=...")


def page_url(host: str, port: int) -> str:
    """Return the address of the page for a browser on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def has_display(environment: Mapping[str, str], platform: str) -> bool:
    """Whether this machine can show a browser's window; a Linux machine says so in its environment."""
    return platform in ("darwin", "win32") or bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
