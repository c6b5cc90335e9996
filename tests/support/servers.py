"""Servers in threads, on ports that were free."""

import concurrent.futures
import contextlib
import threading
import time

import httpx
import uvicorn

from janus_jax.serve.app import make_app
from janus_jax.serve.settings import Settings

CLIENT = httpx.Client(timeout=120, verify=False)  # of all tests: to make one takes long


@contextlib.contextmanager
def serving(engine, **settings):
    """The address of a server with these Settings, such as http://127.0.0.1:40123."""
    with running(make_app(engine, Settings(**{"model": "quickstart"} | settings))) as address:
        yield address


@contextlib.contextmanager
def running(app, **config):
    """The address of an app. config: uvicorn's."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", **config))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


def ask(address: str, body=None, route: str = "chat/completions", **how) -> httpx.Response:
    """POST to /v1/ROUTE; `body` is sent as JSON."""
    how = {"json": body} | how if body is not None else how
    return CLIENT.post(f"{address}/v1/{route}", **how)


def get(address: str, path: str, **how) -> httpx.Response:
    return CLIENT.get(address + path, **how)


@contextlib.contextmanager
def asking(address, body, route="chat/completions"):
    """The Future of a reply."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(ask, address, body, route)


def user(content) -> dict:
    """The body of a chat of one message."""
    return {"messages": [{"role": "user", "content": content}]}
