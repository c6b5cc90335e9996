"""A model of random weights and its processor, and a weights directory of one."""

import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.sampling import make

from janus_jax.weights import load


@pytest.fixture(scope="session")
def weights():
    """A model of random weights, sharpened so that its ids vary."""
    with on_mesh():
        return make()


@pytest.fixture
def model(weights, one_device):
    return weights


@pytest.fixture
def processor():
    return tiny.processor()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A weights directory of random weights."""
    path = tmp_path_factory.mktemp("weights") / "model"
    with on_mesh():
        params = nnx.to_pure_dict(nnx.split(tiny.make_model())[1])
        load.export(path, params, tiny.CONFIG, tiny.processor())
    return path
