"""The mesh, and every PartitionSpec of the project, named by shape suffix.

Mesh axes: `data` (replicas across slices), `fsdp` (weights and batch split together), `tensor` (heads, MLP
width and vocabularies split). Letters: B batch rows, T tokens, D width, F MLP width, H heads, K head size,
V vocabulary, N image tokens (or tensor shards), P parts of a joint product. No other file spells an axis name.
"""

import contextlib
import math

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # what a batch is split over

REPLICATED = P()
BATCH = P(ROWS)
CHUNKS = P(None, ROWS)
ACT_BTD = P(ROWS, None, None)
ACT_BTF = P(ROWS, None, "tensor")
ACT_BTV = P(ROWS, None, "tensor")
ACT_BTHK = P(ROWS, None, "tensor", None)
STACK_BTHK = P(None, *ACT_BTHK)
SHARDS_DNF = P("fsdp", "tensor", None)
SHARDS_BTNPF = P(ROWS, None, "tensor", None, None)
B_F = P("tensor")
W_DF = P("fsdp", "tensor")
W_FD = P("tensor", "fsdp")
W_VD = P(None, ("fsdp", "tensor"))


def platform() -> str:
    """What the current mesh is made of: cpu, gpu or tpu (also one that is only compiled for)."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def per_device(function, in_specs, out_specs):
    """`function` over each device's own part of its arguments; what crosses devices is written in it."""
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def tensor_shards() -> int:
    """How many ways the current mesh splits heads and MLP widths."""
    return jax.sharding.get_abstract_mesh().shape["tensor"]


def batch_shards() -> int:
    """How many ways the current mesh splits the rows of a batch."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in ROWS)


def gathered(spec: P) -> P:
    """The spec of a weight at the moment it is used: whole along `fsdp`, still split along `tensor`."""
    return P(*(axis if axis == "tensor" else None for axis in spec))


def mesh_shape(data: int, fsdp: int, tensor: int, devices: int) -> tuple[int, int, int]:
    """Sizes of the three axes; one of them may be -1, "the devices that are left".

    Raises ValueError when the product is not the number of devices.
    """
    sizes = [data, fsdp, tensor]
    asked = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"mesh ({asked}): each axis is at least 1, and at most one is -1 (the devices left)")
    if -1 in sizes:
        rest, at = math.prod(size for size in sizes if size != -1), sizes.index(-1)
        if devices % rest:
            fitting = [n for n in range(1, devices + 1) if devices % n == 0]
            near = [max(n for n in fitting if n < rest), *[n for n in fitting if n > rest][:1]]
            product = " * ".join(axis for i, axis in enumerate(AXES) if i != at)
            raise ValueError(
                f"mesh ({asked}): {product} = {rest} must divide the {devices} devices; nearest: "
                f"{' or '.join(map(str, near))}"
            )
        sizes[at] = devices // rest
    product = math.prod(sizes)
    if product != devices:
        raise ValueError(
            f"mesh ({asked}): {'x'.join(map(str, sizes))}={product} of {devices} devices; choose axes whose "
            f"product is {devices}, or leave one at -1"
        )
    return tuple(sizes)


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
    """An explicit-sharding mesh over all devices (or those given); see `mesh_shape` for -1 and errors."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(data, fsdp, tensor, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Explicit,) * 3, devices=devices)


def ensure_mesh():
    """Sets a one-device mesh when none is set, so that a notebook user never has to hear of one."""
    if not jax.sharding.get_abstract_mesh().shape:
        jax.set_mesh(make_mesh(1, 1, 1, jax.devices()[:1]))


def concrete(abstract):
    """Gives every leaf of a `jax.eval_shape` tree the current mesh, with the spec found while tracing."""
    mesh = jax.sharding.get_mesh()

    def put(x):
        return x.update(sharding=NamedSharding(mesh, x.sharding.spec if x.sharding is not None else P()))

    return jax.tree.map(put, abstract)


def mesh_context(mesh: jax.sharding.Mesh) -> contextlib.AbstractContextManager:
    """`with mesh_context(mesh):` uses `mesh` for a while (tests, ahead-of-time compilation)."""
    return jax.set_mesh(mesh)


def put_batch(batch: dict) -> dict:
    """This host's rows (numpy) as global arrays split over the batch axes."""
    sharding = NamedSharding(jax.sharding.get_mesh(), BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def fitting(spec: P, shape: tuple[int, ...]) -> P:
    """The spec without the axes that do not divide their dimension: a small one is whole on every device."""
    sizes = jax.sharding.get_abstract_mesh().shape
    ways = lambda axis: math.prod(sizes[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    return P(*(axis if axis and n % ways(axis) == 0 else None for axis, n in zip(spec, shape)))


def parts(x, count: int):
    """Rows [B, ...] as [count, B / count, ...]; every device keeps its rows."""
    split = lambda x: x.reshape(count, -1, *x.shape[1:])
    return per_device(split, BATCH, CHUNKS)(x)


# Inside `per_device`.


def tensor_index():
    """Which shard of the heads, MLP widths and vocabularies this device has."""
    return jax.lax.axis_index("tensor")


def gather_rows(kernel):
    """A kernel split as W_DF, whole along its rows."""
    return jax.lax.all_gather(kernel, "fsdp", axis=0, tiled=True)


def sum_to_rows(kernel):
    """The inverse of `gather_rows` for gradients: each device's, summed over the rows of a batch, its part."""
    return jax.lax.psum(jax.lax.psum_scatter(kernel, "fsdp", scatter_dimension=0, tiled=True), "data")


def sum_over_rows(x):
    """Over all devices that have rows of the batch of their own."""
    return jax.lax.psum(x, ROWS)


def largest(x):
    """Over all devices."""
    return jax.lax.pmax(x, AXES)


def sum_of_vocabulary(x):
    """Over the devices that share a vocabulary."""
    return jax.lax.psum(x, "tensor") if tensor_shards() > 1 else x


def largest_of_vocabulary(x):
    """Over the devices that share a vocabulary."""
    return jax.lax.pmax(x, "tensor") if tensor_shards() > 1 else x
