"""Pictures by address in a running server: from allowed hosts alone, and at no one else's cost."""

import json
import threading

import pytest
from support.held_engine import soon
from support.hostile import CHAT, said, saved, shown, uri
from support.sockets import asked, connect, everything, request
from support.web import local_web

from janus_jax.serve import service

PART = {"type": "image_url"}


@pytest.fixture
def web(monkeypatch):
    with local_web(monkeypatch) as web:
        web.page("/a.png", saved("PNG"))
        web.page("/page", b"<!doctype html>", Content_Type="image/png")
        web.page("/away", status=302, Location="http://169.254.169.254/latest/meta-data/")
        yield web


def test_pictures_come_from_allowed_hosts_alone(serve, web):
    both = ["http://pictures.example/a.png", uri(saved("JPEG"))]
    ask = lambda *urls: request(CHAT, said([PART | {"image_url": {"url": u}} for u in urls]))
    with serve(allow_urls=("pictures.example",)) as address:
        status, content = asked(address, ask(*both))
        assert status == 200 and json.loads(content)["usage"]["prompt_tokens"] > 2 * 9
        assert [path for _, path, _ in web.asked] == ["/a.png"]
        places = ("pictures.example/away", "pictures.example/page", "other.example/a.png")
        bad = [f"http://{place}" for place in places]
        status, content = asked(address, ask(*both, *bad))
        error = json.loads(content)["error"]
        assert (status, error["code"]) == (400, "invalid_image")
        for number, words in enumerate(("169.254.169.254 are not allowed", "web page", "other.e")):
            line = error["message"].splitlines()[number]
            assert line.startswith(f"messages[0].content[{number + 2}].image_url: {bad[number]}")
            assert words in line


def test_a_host_that_does_not_answer_keeps_nobody_else_waiting(serve, web):
    """Neither answers about pictures that are sent, nor others."""
    let_go = threading.Event()
    web.pages["/never"] = lambda handler: let_go.wait(30)
    slow = request(CHAT, shown("http://pictures.example/never"))
    with serve(allow_urls=("pictures.example",)) as address:
        waiting = [connect(address, slow) for _ in range(service.DECODING + 1)]
        assert soon(lambda: len(web.asked) == len(waiting))
        for body in (shown(uri(saved("PNG"))), said("what is it?", max_tokens=2)):
            assert asked(address, request(CHAT, body))[0] == 200
        for connection in waiting:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):  # it still waits
                connection.recv(1)
            connection.setblocking(True)
        let_go.set()
        for connection in waiting:
            assert b"cannot be read (RemoteDisconnected)" in everything(connection)
            connection.close()


def test_what_is_fetched_counts_as_what_is_sent(hold, web, monkeypatch):
    monkeypatch.setattr(service, "BODIES", 1)
    web.page("/long.png", saved("PNG") + bytes(900))
    with hold(allow_urls=("pictures.example",), max_body=1000) as address:
        body = shown("http://pictures.example/long.png")
        status, content = asked(address, request(CHAT, body))
        assert (status, json.loads(content)["error"]["code"]) == (429, "memory_full")
        status, content = asked(address, request(CHAT, said("a" * 700, stop="")))
        assert status == 400, "nothing of it is kept"
