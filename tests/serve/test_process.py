"""The server as a process: told to stop while it works. (Its engine is one that the test holds.)"""

import concurrent.futures
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import httpx
import pytest
from support.held_engine import HeldEngine, soon
from support.hostile import saved, shown, uri
from support.paths import ROOT
from support.servers import CLIENT, ask, asking, get, user

from janus_jax.common.exit_codes import UsageError
from janus_jax.serve import pictures, process
from janus_jax.serve.app import make_app
from janus_jax.serve.process import address, listening
from janus_jax.serve.settings import Settings


class Child:
    """A server of `HeldEngine` that ends its requests once `let_end` was called."""

    def __init__(self, tmp_path, drain: float):
        self.file = tmp_path / "end"
        with listening("127.0.0.1", 0) as free:
            self.address = address(free)
        port = self.address.rpartition(":")[2]
        program = [sys.executable, ROOT / "tests" / "support" / "held_engine.py"]
        self.process = subprocess.Popen(
            [*map(str, program), port, str(self.file), str(drain)], stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert soon(self.is_ready), "it did not begin"

    def is_ready(self) -> bool:
        try:
            return get(self.address, "/ready").is_success
        except httpx.TransportError:
            return False

    def let_end(self):
        self.file.touch()

    def end(self, sig) -> None:
        self.process.send_signal(sig)

    def code(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err


@pytest.fixture
def start(tmp_path):
    children = []

    def begin(drain: float) -> Child:
        children.append(Child(tmp_path, drain))
        return children[-1]

    yield begin
    for child in children:
        child.process.kill()
        child.process.communicate()


def stream(url: str):
    body = user("hi") | {"stream": True}
    return CLIENT.stream("POST", f"{url}/v1/chat/completions", json=body)


@pytest.mark.processes
def test_sigterm_refuses_new_requests_lets_the_running_one_end_and_exits_0(start):
    child = start(60)
    with stream(child.address) as reply:
        lines = reply.iter_lines()
        next(lines)
        child.end(signal.SIGTERM)
        assert soon(lambda: get(child.address, "/ready").status_code == 503)
        assert ask(child.address, user("hi")).json()["error"]["code"] == "stopping"
        assert get(child.address, "/health").is_success
        child.let_end()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    code, err = child.code()
    assert code == 0 and "SIGTERM: no new requests; 1 that run have 60 s" in err
    assert "Traceback" not in err


def told_the_end(lines) -> bool:
    """Whether a stream ends with the error that the server stops."""
    *_, last = [line for line in lines if line]
    return json.loads(last.removeprefix("data: "))["error"]["code"] == "stopping"


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(("sig", "want"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_what_runs_longer_than_it_may_hears_so_and_the_process_ends(start, sig, want):
    child = start(0)
    with stream(child.address) as reply:
        lines = reply.iter_lines()
        next(lines)
        child.end(sig)
        assert told_the_end(lines)
    code, err = child.code()
    assert code == want and "Traceback" not in err


@pytest.fixture
def inside(monkeypatch):
    """`inside(load)`: a Server in a thread, its Future, its address, and the exit codes it gives."""
    codes = []
    monkeypatch.setattr(process.exits, "exit_now", codes.append)
    with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:

        def begin(load):
            server = process.Server(make_app(None, Settings("held")), drain=0)
            stack.callback(setattr, server, "should_exit", True)
            listener = stack.enter_context(listening("127.0.0.1", 0))
            url = address(listener)
            return server, pool.submit(server.run_with, listener, load), url, codes

        yield begin


def test_a_request_that_runs_longer_than_drain_hears_so(inside):
    engine = HeldEngine()
    server, done, url, codes = inside(lambda: engine)
    assert soon(lambda: get(url, "/ready").is_success)
    with stream(url) as reply:
        lines = reply.iter_lines()
        next(lines)
        server.handle_exit(signal.SIGTERM, None)
        assert told_the_end(lines)
    done.result(60)
    assert codes == [0] and engine.closed


def test_a_request_whose_picture_is_being_decoded_at_the_end_hears_so(inside, monkeypatch, caplog):
    let_go, begun = threading.Event(), threading.Event()
    slow = lambda *_: begun.set() or let_go.wait(20)
    monkeypatch.setattr(pictures, "understanding_image", slow)
    monkeypatch.setattr(process, "LAST_WORDS", 0)
    server, done, url, _ = inside(HeldEngine)
    assert soon(lambda: get(url, "/ready").is_success)
    with asking(url, shown(uri(saved("PNG")))) as reply:
        assert begun.wait(20)
        server.handle_exit(signal.SIGTERM, None)
        reply = reply.result()
    let_go.set()
    done.result(60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "stopping")
    assert not [record for record in caplog.records if record.exc_info]


def test_what_is_wrong_with_the_model_ends_the_server_with_that_error(inside):
    def load():
        raise UsageError("no such model")

    _, done, _, codes = inside(load)
    with pytest.raises(UsageError, match="no such model"):
        done.result(60)
    assert codes == []


def test_a_port_that_is_taken_is_told_with_a_remedy():
    with (
        listening("127.0.0.1", 0) as taken,
        pytest.raises(UsageError, match="give a port that is free"),
    ):
        listening("127.0.0.1", taken.getsockname()[1])


def test_a_host_that_is_not_of_this_machine_is_told():
    with pytest.raises(UsageError, match=r"--host=203\.0\.113\.1 .*127\.0\.0\.1 for it alone"):
        listening("203.0.113.1", 0)


def test_the_address_of_ipv6_stands_in_brackets():
    listener = SimpleNamespace(getsockname=lambda: ("::1", 8000, 0, 0))
    assert address(listener) == "http://[::1]:8000"
