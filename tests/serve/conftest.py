"""Servers once for each file of tests: of the small model, and of an engine that tests hold."""

import functools

import pytest
from support.held_engine import HeldEngine
from support.mesh import on_mesh
from support.servers import serving

import janus_jax
from janus_jax.serve.engine import Engine


@pytest.fixture(scope="module")
def loaded():
    """(model, processor) of the package's small weights in float32, in which the same request gives
    the same ids in any company, on one device."""
    with on_mesh():
        yield janus_jax.load("quickstart", dtype="float32")


@pytest.fixture(scope="module")
def engine(loaded):
    made = Engine(*loaded)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(engine):
    """The address of a server of the small model."""
    with serving(engine) as address:
        yield address


@pytest.fixture(scope="module")
def serve(engine):
    """`with serve(max_n=2) as address`: a server with Settings of its own, on the same engine."""
    return functools.partial(serving, engine)


@pytest.fixture
def held():
    return HeldEngine()


@pytest.fixture
def hold(held):
    """`with hold(max_n=2) as address`: a server of the engine `held`."""
    return functools.partial(serving, held)


@pytest.fixture(scope="module")
def door():
    """The address of a server whose engine answers nothing: for what never reaches it."""
    with serving(HeldEngine()) as address:
        yield address
