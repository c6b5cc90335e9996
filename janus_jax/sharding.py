"""The mesh, and every PartitionSpec of the project, named by shape suffix.

Mesh axes: `data` (replicas across slices), `fsdp` (weights and batch split together), `tensor` (heads, MLP
width and vocabularies split). Letters: B batch rows, T tokens, D width, F MLP width, H heads, K head size,
V vocabulary, N image tokens (or tensor shards), P parts of a joint product. No other file spells an axis name.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator

import jax
import numpy as np
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
    """`function` over each device's own part of its arguments, split as `in_specs` says, or brought into that split;
    what crosses devices is written in it."""
    mapped = jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return lambda *args: mapped(*map(jax.sharding.reshard, args, in_specs))


def tensor_shards() -> int:
    """How many ways the current mesh splits heads and MLP widths."""
    return jax.sharding.get_abstract_mesh().shape["tensor"]


def batch_shards() -> int:
    """How many ways the current mesh splits the rows of a batch."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in ROWS)


def gathered(spec: P) -> P:
    """The spec of a weight at the moment it is used: whole along `fsdp`, still split along `tensor`."""
    return P(*(axis if axis == "tensor" else None for axis in spec))


def gather(weight, spec: P):
    """A weight split as `spec` says, as `gathered(spec)`. Typed so that its gradient is scattered over `fsdp` and
    what is left of it summed over `data`: replicas exchange their shards only. One that is whole already is returned
    as it is."""
    if jax.typeof(weight).sharding.spec == gathered(spec):
        return weight
    weight = jax.sharding.reshard(weight, P(*spec, reduced={"data"}))
    return jax.sharding.reshard(weight, P(*gathered(spec), reduced=set(ROWS)))


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


@contextlib.contextmanager
def traced_on(data: int, fsdp: int, tensor: int, devices: int):
    """Within it, shapes are traced as on `make_mesh` over devices that need not be there, whatever mesh is set. See
    `mesh_shape` for -1 and errors."""
    shape = mesh_shape(data, fsdp, tensor, devices)
    mesh = jax.sharding.AbstractMesh(shape, AXES, axis_types=(AxisType.Explicit,) * 3)
    none = jax.sharding.AbstractMesh((), ())  # JAX refuses to go from a mesh to one of another size at once
    with jax.sharding.use_abstract_mesh(none), jax.sharding.use_abstract_mesh(mesh):
        yield


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


def batch_share() -> tuple[int, int]:
    """(which share of a batch's rows this process feeds, how many shares there are). Processes whose devices hold
    the same rows, because `tensor` spans them, have the same share."""
    devices = jax.sharding.get_mesh().devices
    owner = np.array([device.process_index for device in devices.flat]).reshape(-1, devices.shape[-1])
    share, count = shares(owner)
    return share[jax.process_index()], count


def shares(owner: np.ndarray) -> tuple[dict[int, int], int]:
    """`batch_share` by process. owner: the process of each device, int [blocks of rows, tensor]."""
    held = {int(p): tuple(np.flatnonzero((owner == p).any(1)).tolist()) for p in np.unique(owner)}
    found = sorted(set(held.values()))
    if sum(map(len, found)) != len(owner) or len({len(blocks) for blocks in found}) > 1:
        raise ValueError(
            f"mesh.tensor is {owner.shape[1]}: some rows of a batch would lie partly with one process and partly "
            f"with another; it must divide a process's devices, or be a multiple of them"
        )
    return {process: found.index(blocks) for process, blocks in held.items()}, len(found)


def put_batch(batch: dict) -> dict:
    """This process's rows (numpy; see `batch_share`) as global arrays split over the batch axes."""
    sharding = NamedSharding(jax.sharding.get_mesh(), BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has (numpy) as a global one, of which each keeps its own part. (`device_put`
    would send it all to the other processes, to compare.)"""
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def put_layers(layers: Iterable[np.ndarray], like: jax.ShapeDtypeStruct) -> jax.Array:
    """`put` for a stack, from its layers one by one: a process never holds all of what it keeps a part of."""
    parts = {
        str(index): index for index in like.sharding.addressable_devices_indices_map(like.shape).values()
    }
    shape = like.sharding.shard_shape(like.shape)
    stacks = {key: np.empty(shape, like.dtype) for key in parts}
    for i, layer in enumerate(layers):
        for key, index in parts.items():
            stacks[key][i] = layer[index[1:]]
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: stacks[str(index)])


def pieces(x: jax.Array, stacked: bool) -> Iterator[np.ndarray]:
    """A global array on every process, whole or (stacked) layer by layer. All processes must go through it."""
    if x.is_fully_addressable:
        yield from np.asarray(x) if stacked else [np.asarray(x)]
        return
    for i in range(x.shape[0]) if stacked else [None]:
        yield np.asarray(_gathered(x, i))


@jax.jit
def _gathered(x, i):
    return jax.sharding.reshard(x if i is None else jax.lax.dynamic_index_in_dim(x, i, 0, False), REPLICATED)


def fitting(spec: P, shape: tuple[int, ...]) -> P:
    """The spec without the axes that do not divide their dimension: a small one is whole on every device."""
    sizes = jax.sharding.get_abstract_mesh().shape
    ways = lambda axis: math.prod(sizes[a] for a in (axis if isinstance(axis, tuple) else (axis,)))
    return P(*(axis if axis and n % ways(axis) == 0 else None for axis, n in zip(spec, shape)))


def parts(x, count: int):
    """Rows [B, ...] as [count, B / count, ...]; every device keeps its rows."""
    split = lambda x: x.reshape(count, x.shape[0] // count, *x.shape[1:])
    return per_device(split, (BATCH,), CHUNKS)(x)


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


def sum_to_columns(table, spec: P):
    """Gradients of a whole table [V, D], each device's for its rows of the batch, to the sum split as W_VD is, or
    whole for any other `spec`."""
    if spec != W_VD:
        return sum_over_rows(table)
    part = jax.lax.psum_scatter(table, "fsdp", scatter_dimension=1, tiled=True)
    width = part.shape[1] // tensor_shards()
    part = jax.lax.dynamic_slice_in_dim(part, tensor_index() * width, width, 1)
    return jax.lax.psum(part, "data")


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
