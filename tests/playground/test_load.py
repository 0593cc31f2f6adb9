"""The playground's server under load and misuse, over real sockets."""

import http.client
import json
import resource
import socket
import time
from pathlib import Path

import pytest
from tests.playground.conftest import running

from minigpt.playground import connections, generation_stream, request_checks, request_queue, web_app

INSPECT = {"checkpoint": "step_7.ckpt", "prompt": "To be"}
GENERATE = INSPECT | {"tokens": [], "temperature": 1.0, "max_new_tokens": 500, "seed": 1}
GOOD_WITHIN_S = 2.0
SLOW = b"POST /api/inspect HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n"


def connect(client, *, sends=b""):
    """A socket to the server that has sent something."""
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=20)
    connection.sendall(sends)
    return connection


def good_request_s(client):
    """How long a good request takes [s]."""
    begin = time.monotonic()
    assert client.ask("/api/inspect", INSPECT)[0] == 200
    return time.monotonic() - begin


def is_closed(connection):
    """Whether the server has closed a socket."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


def resident_bytes():
    """The memory of this process, which is the server's too."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("sent", [b"", SLOW, SLOW + b"\r\n{"], ids=["nothing", "headers", "body"])
def test_200_slow_sockets_do_not_keep_a_good_request_waiting(client, sent):
    slow = [connect(client, sends=sent) for _ in range(200)]
    try:
        assert good_request_s(client) < GOOD_WITHIN_S
        closed = [is_closed(connection) for connection in slow]
        assert 200 - connections.MAX_CONNECTIONS <= sum(closed) < 200 and not any(closed[-50:]), "the oldest are closed"
    finally:
        for connection in slow:
            connection.close()


def test_a_client_that_leaves_costs_no_line_on_the_terminal(client, capfd):
    for sent in (b"", SLOW, SLOW + b"\r\n{"):
        connect(client, sends=sent).close()
    assert good_request_s(client) < GOOD_WITHIN_S and capfd.readouterr().err == ""


def test_a_slow_request_is_ended(checkpoints, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    with running(checkpoints) as client:
        for sent in (b"", SLOW, b"POST /api/inspect HTTP/1.1\r\n"):
            begin = time.monotonic()
            with connect(client, sends=sent) as connection:
                assert connection.recv(1000) == b""
            assert 0.2 < time.monotonic() - begin < 5


def test_a_connection_may_be_used_for_longer_than_a_request_may_take(checkpoints, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.4)
    with running(checkpoints) as client:
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
        connection.connect()
        connection.auto_open = 0  # one that was closed is not opened again
        for _ in range(8):
            connection.request("GET", "/icon.svg")
            assert connection.getresponse().read()
            time.sleep(0.1)
        connection.close()


def test_a_body_that_goes_on_after_its_refusal_is_ended(checkpoints, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    start = SLOW.replace(b"Content-Length: 50", b"Content-Length: 104857600")
    with running(checkpoints) as client, connect(client, sends=start + b"\r\n") as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")
        begin = time.monotonic()
        while connection.recv(1 << 16):
            pass
        assert time.monotonic() - begin < 5


def test_a_slow_body_is_refused(checkpoints, monkeypatch):
    monkeypatch.setattr(request_checks, "BODY_TIMEOUT_S", 0.2)
    with running(checkpoints) as client, connect(client, sends=SLOW + b"\r\n{") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % (100 << 20), b"Transfer-Encoding: chunked"])
def test_a_body_of_100_mb_is_refused_and_takes_no_memory(client, framing):
    client.ask("/api/inspect", INSPECT)
    before, most, chunk = resident_bytes(), 0, b" " * (1 << 20)
    with connect(client, sends=SLOW.replace(b"Content-Length: 50", framing) + b"\r\n") as connection:
        for _ in range(100):
            size = b"%x\r\n" % len(chunk) if framing.endswith(b"chunked") else b""
            connection.sendall(size + chunk + (b"\r\n" if size else b""))
            most = max(most, resident_bytes())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
        assert good_request_s(client) < GOOD_WITHIN_S
    assert most - before < 16 << 20


def test_headers_without_an_end_are_refused(client):
    with connect(client, sends=b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


class Reader:
    """A client that begins a generation and does not read it."""

    def __init__(self, client):
        self.connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", "/api/generate", json.dumps(GENERATE), headers)

    def status(self):
        """The status of the response."""
        return self.connection.getresponse().status


@pytest.fixture
def endless(monkeypatch):
    """Generations of many slow steps."""

    def steps(loaded, ids, asked):
        for number in range(10_000):
            time.sleep(0.01)
            yield {"number": number}

    monkeypatch.setattr(web_app, "generate_steps", steps)


def test_one_generation_at_a_time_a_few_wait_and_those_beyond_are_refused(checkpoints, endless):
    with running(checkpoints) as client:
        first = Reader(client)
        assert first.status() == 200
        waiting = [Reader(client) for _ in range(web_app.MAX_WAITING_GENERATIONS)]
        time.sleep(0.5)
        assert client.ask("/api/generate", GENERATE)[0] == 429
        assert good_request_s(client) < GOOD_WITHIN_S, "a generation leaves room for other requests"
        first.connection.sock.close()
        first.connection.close()
        assert waiting[0].status() == 200, "a client that leaves gives its turn to the next"
        waiting[0].connection.sock.close()
        last = Reader(client)  # one has left the queue, so another one may wait
        for reader in waiting:
            reader.connection.close()
        assert last.status() == 200
        last.connection.sock.close()
        last.connection.close()


def test_a_response_has_a_time_limit(checkpoints, endless, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(connections, "RESPONSE_TIMEOUT_S", 0.2)
    with running(checkpoints) as client:
        begin = time.monotonic()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            client.ask("/api/generate", GENERATE)
        assert 0.3 < time.monotonic() - begin < 5


def test_who_has_waited_too_long_is_told_so(checkpoints, endless, monkeypatch):
    monkeypatch.setattr(request_queue, "WAIT_S", 0.2)
    with running(checkpoints) as client:
        first = Reader(client)
        assert first.status() == 200
        status, headers, _ = client.ask("/api/generate", GENERATE)
        assert status == 503 and headers["retry-after"] == "5"
        first.connection.sock.close()
        first.connection.close()


def test_a_generation_has_a_time_limit(checkpoints, endless, monkeypatch):
    monkeypatch.setattr(generation_stream, "GENERATION_TIMEOUT_S", 0.3)
    with running(checkpoints) as client:
        for _ in range(2):
            with pytest.raises(http.client.IncompleteRead):
                client.ask("/api/generate", GENERATE)
        assert good_request_s(client) < GOOD_WITHIN_S
