"""transformers' Janus and ours with the same random weights, built once."""

import pytest
from support import oracle
from support.mesh import on_mesh


@pytest.fixture(scope="session")
def models():
    """(config, theirs, ours)."""
    with on_mesh():
        return oracle.build()


@pytest.fixture
def theirs(models):
    return models[1]


@pytest.fixture
def ours(models, one_device):
    return models[2]
