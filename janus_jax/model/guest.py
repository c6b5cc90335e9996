"""JAX as we use it, within our calls only: a library is a guest in its caller's process."""

import contextlib

import jax
from jax.sharding import AxisType

from janus_jax.model import sharding as sh

# What JAX is told while we compute, by context manager: its defaults, whatever the caller has set,
# but for float32, which is true float32 on every platform.
OWN = {
    "enable_x64": False, "numpy_rank_promotion": "allow", "numpy_dtype_promotion": "standard",
    "default_matmul_precision": "highest", "threefry_partitionable": True, "debug_nans": False,
    "debug_infs": False, "disable_jit": False, "transfer_guard": "allow", "default_device": None,
    "check_tracer_leaks": False, "debug_key_reuse": False,
}  # fmt: skip


@contextlib.contextmanager
def own_jax(model=None):
    """JAX as we use it, for a while and in this thread: `OWN`, and the mesh that the model lies on,
    else the caller's where it has our axes, else one device. The caller's JAX stays as it is.
    Raises ValueError for a model that lies elsewhere."""
    mesh = (model and _home(model)) or _with_our_axes(jax.sharding.get_mesh())
    if mesh is None:
        device = jax.config.jax_default_device or jax.local_devices()[0]
        device = jax.local_devices(backend=device)[0] if isinstance(device, str) else device
        mesh = sh.make_mesh(1, 1, 1, [device])
    with contextlib.ExitStack() as stack:
        for name, value in OWN.items():
            stack.enter_context(getattr(jax, name)(value))
        stack.enter_context(jax.set_mesh(mesh))
        yield


def _home(model):
    """The mesh that a model lies on; None for a single device."""
    sharding = getattr(model.text_embedding.table, "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    home = _with_our_axes(mesh)
    if sharding is None or (mesh is not None and home is None):
        where = f"on a mesh with the axes {mesh.axis_names}" if mesh else "in numpy arrays"
        raise ValueError(
            f"the model lies {where}: take it as janus_jax.load gives it, or jax.device_put it on "
            f"one device, or load it within jax.set_mesh of a mesh with the axes {sh.AXES}"
        )
    return home


def _with_our_axes(mesh):
    """The mesh with explicit axes; None for one that lacks ours."""
    if mesh is None or not set(sh.AXES) <= set(mesh.axis_names):
        return None
    kinds = (AxisType.Explicit,) * len(mesh.axis_names)
    if mesh.axis_types == kinds:
        return mesh
    return jax.sharding.Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
