"""Meshes of fake devices."""

import contextlib

import jax

from janus_jax.model import sharding as sh


@contextlib.contextmanager
def on_mesh(data=1, fsdp=1, tensor=1):
    """Runs the body on the first data * fsdp * tensor devices."""
    with sh.mesh_context(
        sh.make_mesh(data, fsdp, tensor, jax.devices()[: data * fsdp * tensor])
    ) as mesh:
        yield mesh
