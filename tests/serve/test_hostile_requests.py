"""Requests made to break the server are each answered with what is wrong with them; it lives on,
and keeps nothing of them."""

import http.client
import json

import pytest
from support.hostile import HOSTILE, JSON


def post(address: str, route: str, body: bytes, headers=JSON) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.request("POST", route, body, headers)
    reply = connection.getresponse()
    out = reply.status, reply.read()
    connection.close()
    return out


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_told_what_is_wrong_with_it(server, name):
    route, body, headers, status, words = HOSTILE[name]
    got, content = post(server, route, body, headers)
    error = json.loads(content)["error"]
    assert (got, words in error["message"]) == (status, True), error
    assert error["type"] == "invalid_request_error" and error["code"]
    assert len(content) < 10_000 and b"\n" not in content and b"Traceback" not in content


@pytest.mark.parametrize("path", ["/page/../../../etc/passwd", "/page/..%2f..%2fsettings.py"])
def test_a_path_upwards_leads_nowhere(server, path):
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()
