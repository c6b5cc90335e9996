"""What the runs of two processes begin with."""

import pytest
from flax import nnx
from support import tiny, two_processes
from support.mesh import on_mesh

from janus_jax.weights.load import export


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Of all runs; `weights` are what they begin with."""
    directory = tmp_path_factory.mktemp("two")
    with on_mesh(1, 8, 1):
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(two_processes.MODEL)))
        export(directory / "weights", params, two_processes.MODEL)
    return directory
