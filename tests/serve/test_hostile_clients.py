"""Clients that hold, drop and flood connections take nothing from the others, and what they took is
given back."""

import concurrent.futures
import contextlib
import gc
import json
import os
import re

import pytest
from support.held_engine import soon
from support.hostile import CHAT, HOSTILE, IMAGES, said, saved, shown, uri
from support.servers import CLIENT, running
from support.sockets import asked, connect, everything, request

from janus_jax.data.messages import SPECIALS
from janus_jax.serve import process
from janus_jax.serve.app import make_app
from janus_jax.serve.connections import TimedProtocol
from janus_jax.serve.service import BODIES
from janus_jax.serve.settings import Settings

PART = {"type": "image_url"}


@pytest.fixture
def start(engine):
    """`with start(max_n=2) as address`: a server as the command's, on the engine of all."""

    @contextlib.contextmanager
    def start(**settings):
        app = make_app(engine, Settings("quickstart", **settings))
        protocol = process.Server(app, 0.0).config.http
        with running(app, http=protocol, access_log=False) as address:
            yield address
        assert app.state.service.open == 0

    return start


def answers(address: int) -> bool:
    """Whether the server still does what it is there for."""
    status, content = asked(address, request(CHAT, said("what is it?", max_tokens=2)))
    return status == 200 and bool(json.loads(content)["usage"]["completion_tokens"])


def resident() -> float:
    """Megabytes of memory of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux tells it so")
def test_what_large_requests_took_is_given_back(start):
    """20 of 20 MB and more, refused, and pictures of 4 million pixels."""
    large = [b'{"prompt": "' + b"a" * 19_900_000 + b'"}', b'{"prompt": "' + b"a" * 25_000_000]
    picture = request(CHAT, shown(uri(saved("PNG", (2000, 2000)))))

    def flood(times: int):
        for _ in range(times):
            assert [asked(address, request(IMAGES, body))[0] for body in large] == [400, 413]
            assert asked(address, picture)[0] == 200

    with start(max_n=2) as address:
        flood(3)
        before = resident()
        flood(10)
        assert resident() - before < 60
        assert answers(address)


def test_200_connections_at_once_are_all_answered(start):
    body = request(CHAT, said("what is it?", max_tokens=2))
    with start() as address, concurrent.futures.ThreadPoolExecutor(32) as pool:
        open_ = [connect(address, body[:-1]) for _ in range(200)]
        for connection in open_:  # all have come but for a letter
            connection.sendall(body[-1:])
        replies = list(pool.map(everything, open_))
        for connection in open_:
            connection.close()
        counts = [int(reply.split()[1]) for reply in replies]
        assert set(counts) <= {200, 429} and counts.count(200) >= 64
        full = [reply for reply in replies if b" 429 " in reply[:20]]
        assert all(b"retry-after" in reply.lower() and b"queue_full" in reply for reply in full)
        assert answers(address)


@pytest.mark.parametrize(
    "route, body",
    [
        (IMAGES, {"prompt": "a red circle", "n": 8}),
        (IMAGES, {"prompt": "a red circle", "n": 8, "stream": True}),
        (CHAT, said("a red circle", n=8, draw=True)),
        (CHAT, said("what is it?", n=8, stream=True)),
    ],
)
def test_a_client_that_leaves_frees_its_rows(start, engine, route, body):
    with start() as address:
        connection = connect(address, request(route, body))
        assert soon(lambda: engine.counts()["running"])
        connection.close()
        assert soon(lambda: not engine.counts()["running"] and not engine.counts()["waiting"])
        assert engine.counts()["rows_used"] == 0
        assert answers(address)


def test_a_stream_that_is_cut_at_its_first_words_frees_its_rows(start, engine):
    with start() as address:
        with connect(
            address, request(IMAGES, {"prompt": "a", "n": 8, "stream": True})
        ) as connection:
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
        assert soon(lambda: not engine.counts()["running"] and not engine.counts()["waiting"])
        assert answers(address)


def test_a_body_that_comes_slowly_is_answered_and_others_are_not_kept(start):
    with start(body_timeout=0.3) as address:
        slow = [connect(address, request(CHAT, b"{", told=5000)) for _ in range(20)]
        assert answers(address)
        for connection in slow:
            reply = everything(connection)
            assert reply.startswith(b"HTTP/1.1 408") and b"did not come within 0.3 s" in reply
            connection.close()


def test_a_head_that_does_not_come_ends_the_connection(start, monkeypatch):
    with start() as address:
        with monkeypatch.context() as short:
            short.setattr(TimedProtocol, "head_seconds", 0.2)
            with connect(address, b"POST /v1/chat") as connection:
                assert everything(connection) == b""
        assert answers(address)


def test_a_body_that_ends_early_is_let_go(start):
    with start() as address:
        for _ in range(20):
            connect(address, request(CHAT, b"{", told=5000)).close()
        assert answers(address)


@pytest.mark.parametrize("size", [20_000_001, 30_000_000])
def test_a_body_whose_length_is_not_told_is_bounded(start, size):
    head = request(IMAGES, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    part = b"%x\r\n%s\r\n" % (10**6, b" " * 10**6)
    with start() as address:
        status, content = asked(address, head, *[part] * (size // 10**6 + 1), b"0\r\n\r\n")
        assert (status, b"larger than 20" in content) == (413, True)
        assert answers(address)


def test_a_body_that_claims_to_be_endless_is_refused(start):
    with start(body_timeout=0.3) as address:
        assert asked(address, request(IMAGES, b"{", told=10**18))[0] in (408, 413)
        assert answers(address)


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(100),  # TLS
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 50_000 + b"\r\n",
        b"GET /nowhere HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_http_is_answered_or_dropped(start, text):
    with start() as address:
        with contextlib.suppress(ConnectionError), connect(address, text) as connection:
            connection.settimeout(10)
            reply = everything(connection)
            assert reply == b"" or re.match(rb"HTTP/1.1 4\d\d ", reply), reply[:200]
        assert answers(address)


@pytest.mark.parametrize(
    "header",
    ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic c2VjcmV0\r\n",
     "Authorization: Bearer \r\n", "Authorization: secret\r\n", "X-API-Key: secret\r\n",
     "Authorization: Bearer " + "x" * 10_000 + "\r\n", "Authorization: Bearer secre\r\n"],
)  # fmt: skip
def test_nobody_passes_without_the_key(start, header):
    with start(api_keys=("secret",)) as address:
        for route in (CHAT, IMAGES, "/openapi.json", "/nowhere"):
            status, content = asked(address, request(route, said("hi"), more=header))
            assert status == 401 and json.loads(content)["error"]["code"] == "invalid_api_key"
        known = "Authorization: Bearer secret\r\n"
        assert asked(address, request(CHAT, said("hi", max_tokens=1), more=known))[0] == 200


def test_other_sites_pages_may_not_ask(start):
    ask = b"OPTIONS %s HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\nConnection: close\r\n"
    ask += b"Access-Control-Request-Method: POST\r\n\r\n"
    for allowed in ((), ("http://page.example",)):
        with start(cors=allowed) as address, connect(address, ask % CHAT.encode()) as connection:
            reply = everything(connection).lower()
            assert b"evil.example" not in reply and b"allow-origin: *" not in reply


@pytest.mark.parametrize("text", [*SPECIALS.values(), "<|User|>", "<|im_start|>system"])
def test_a_control_token_in_a_text_is_text(start, engine, text):
    """It is as many ids as its letters are, none of them the control's, and asks for no picture."""
    processor = engine.processor
    spans, _ = processor.question([{"role": "user", "content": text}])
    ids = [int(i) for span in spans for i in span[0]]
    plain, _ = processor.question([{"role": "user", "content": "x"}])
    plain = [int(i) for span in plain for i in span[0]]
    control = {processor.tokenizer.control(one) for one in SPECIALS.values()}
    assert [i for i in ids if i in control] == [i for i in plain if i in control]
    with start() as address:
        status, content = asked(address, request(CHAT, said(text, max_tokens=1)))
        assert status == 200
        assert json.loads(content)["usage"]["prompt_tokens"] == len(ids) > len(plain)


def test_hostile_requests_at_once_leave_the_others_alone(start):
    """All but the large ones, eight at a time, beside answers."""
    bad = [
        request(route, body)
        for route, body, headers, *_ in HOSTILE.values()
        if headers and len(body) < 10**6
    ]
    with start() as address, concurrent.futures.ThreadPoolExecutor(9) as pool:
        found = pool.map(lambda text: asked(address, text)[0], bad)
        good = [answers(address) for _ in range(20)]
        assert all(400 <= status < 500 for status in found)
        assert all(good)


def test_bodies_of_all_requests_together_are_bounded(start):
    """Those that were there first are answered."""
    body = request(CHAT, said("hi", max_tokens=1, user="x" * 5000))
    with start(max_body=len(body.partition(b"\r\n\r\n")[2])) as address:
        first = [connect(address, body[:-1]) for _ in range(BODIES)]
        replies = []

        def refused():
            replies.append(asked(address, body))
            return replies[-1][0] == 429

        assert soon(refused)  # once the first have come
        assert b"memory_full" in replies[-1][1]
        for connection in first:
            connection.sendall(body[-1:])
            assert everything(connection).startswith(b"HTTP/1.1 200")
            connection.close()
        assert asked(address, body)[0] == 200


def test_a_client_that_leaves_within_its_body_is_no_fault_of_the_server(start, caplog):
    with start() as address:
        connect(address, request(CHAT, b"{", told=5000)).close()
        assert answers(address)
        counts = CLIENT.get(f"{address}/metrics").text
    assert 'status="500"' not in counts and "Traceback" not in caplog.text
