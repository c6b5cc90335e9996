"""A server of the small model in a thread, once for each file of tests."""

import contextlib
import dataclasses
import threading
import time

import pytest
import uvicorn
from support.mesh import on_mesh

import janus_jax
from janus_jax.serve.app import make_app
from janus_jax.serve.engine import Engine
from janus_jax.serve.settings import Settings

SETTINGS = Settings("quickstart")


@pytest.fixture(scope="module")
def loaded():
    """(model, processor) of the package's small weights, on one device."""
    with on_mesh():
        yield janus_jax.load("quickstart")


@pytest.fixture(scope="module")
def engine(loaded):
    made = Engine(*loaded)
    yield made
    made.close()


@contextlib.contextmanager
def serving(engine, **settings):
    """The address of a server with these settings, such as http://127.0.0.1:40123."""
    app = make_app(engine, dataclasses.replace(SETTINGS, **settings))
    with running(app) as address:
        yield address


@contextlib.contextmanager
def running(app):
    """The address of an app that runs in a thread, on a port that was free."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def server(engine):
    """The address of a server of the small model."""
    with serving(engine) as address:
        yield address


@pytest.fixture(scope="module")
def serve(engine):
    """`with serve(max_n=2) as address`: a server with settings of its own, on the same engine."""
    return lambda **settings: serving(engine, **settings)
