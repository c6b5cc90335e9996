"""A model of random weights and its processor."""

import pytest
from support import tiny
from support.mesh import on_mesh
from support.sampling import make


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
