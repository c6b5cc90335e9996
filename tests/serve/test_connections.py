"""A connection takes no more of the server than it may: tried over real sockets with small apps."""

import asyncio
import socket
import time

import pytest
from support.running import everything, running, until

from janus_jax.serve import connections
from janus_jax.serve.connections import TimedProtocol

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"


class Quick(TimedProtocol):
    head_seconds = 0.2
    read_seconds = 0.2


async def curt(scope, receive, send):
    """Answers without reading the body."""
    length = (b"content-length", b"2")
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": b"ok"})


def endless(ended: list):
    """Answers with more than any reader's buffers hold, and notes that it may stop."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        await receive()
        ended.append((await receive())["type"])

    return app


def connect(port: int, *parts: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20)
    for part in parts:
        connection.sendall(part)
    return connection


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"POST / HT",
        GET + b"X-Slow: ",
        GET + b"\r\n" + b"GET / HT",  # behind a whole one
        POST + b"x",  # answered at once, and the rest does not come
    ],
)
def test_a_request_that_does_not_come_whole_ends_the_connection(start):
    """Also where a byte comes now and then."""
    gone = (ConnectionResetError, BrokenPipeError)
    with running(curt, http=Quick) as port, connect(port, start) as connection, pytest.raises(gone):
        for _ in range(1000):
            time.sleep(0.02)
            connection.sendall(b"x")


def test_an_answer_may_take_longer_than_a_head(monkeypatch):
    async def slow(scope, receive, send):
        await asyncio.sleep(0.7)
        await curt(scope, receive, send)

    monkeypatch.setattr(Quick, "head_seconds", 0.5)
    with running(slow, http=Quick) as port, connect(port, POST + bytes(5000)) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_reader_that_stops_reading_is_let_go():
    ended = []
    with running(endless(ended), http=Quick) as port, connect(port, GET + b"\r\n"):
        until(lambda: ended)
    assert ended == ["http.disconnect"]


def test_connections_beyond_the_most_are_closed_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(connections, "_CONNECTIONS", 3)
    with running(curt, http=TimedProtocol) as port:
        kept = [connect(port) for _ in range(3)]
        with connect(port) as one_more:
            assert everything(one_more) == b""
        for connection in kept:
            connection.sendall(GET + b"Connection: close\r\n\r\n")
            assert b"200" in everything(connection)
            connection.close()
        with connect(port, GET + b"Connection: close\r\n\r\n") as later:
            assert b"200" in everything(later)
