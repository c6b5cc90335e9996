"""Eight fake devices, so that every sharded test runs on every machine."""

import contextlib
import signal

import jax
import pytest

from janus_jax import sharding as sh

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # a shell's background ignores it, and so would all children
    signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")


@contextlib.contextmanager
def on_mesh(data=1, fsdp=1, tensor=1):
    """Runs the body on the first data * fsdp * tensor devices."""
    with sh.mesh_context(sh.make_mesh(data, fsdp, tensor, jax.devices()[: data * fsdp * tensor])) as mesh:
        yield mesh


@pytest.fixture
def one_device():
    with on_mesh() as mesh:
        yield mesh
