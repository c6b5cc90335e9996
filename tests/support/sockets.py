"""HTTP over bare sockets: what well-kept clients would not send."""

import contextlib
import json
import socket


def connect(address: str, *parts: bytes) -> socket.socket:
    """A connection to a server, on which the parts were sent."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), 60)
    for part in parts:
        connection.sendall(part)
    return connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def request(route: str, body, *, told: int | None = None, more: str = "") -> bytes:
    """A POST, at whose end the server closes. told: the length that its head says."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    length = len(body) if told is None else told
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Connection: close\r\nContent-Length: {length}\r\n\r\n".encode() + body


def asked(address: str, *parts: bytes) -> tuple[int, bytes]:
    """Status and content of the reply to what is sent."""
    with connect(address, *parts) as connection:
        head, _, content = everything(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), content
