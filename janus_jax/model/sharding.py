"""The mesh, and every PartitionSpec of the project, named by shape suffix.

Mesh axes: `data` (replicas across slices), `fsdp` (weights and batch split together), `tensor`
(heads, MLP width and vocabularies split). Letters: B batch rows, T tokens, D width, F MLP width, H
heads, K head size, V vocabulary, N image tokens (or tensor shards), C the tower's width, P parts of
a joint product. No other file spells an axis name.
"""

import contextlib
import math

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")
ROWS = (DATA, FSDP)  # what a batch is split over

REPLICATED = P()
BATCH = P(ROWS)
CHUNKS = P(None, ROWS)
ACT_BTD = P(ROWS, None, None)
ACT_BTF = P(ROWS, None, TENSOR)
ACT_BTV = P(ROWS, None, TENSOR)
ACT_BTHK = P(ROWS, None, TENSOR, None)
CACHE_BHSK = P(ROWS, TENSOR, None, None)
STACK_BTHK = P(None, *ACT_BTHK)
SHARDS_DNF = P(FSDP, TENSOR, None)
SHARDS_BTNPF = P(ROWS, None, TENSOR, None, None)
B_F = P(TENSOR)
W_DF = P(FSDP, TENSOR)
W_FD = P(TENSOR, FSDP)
W_VD = P(None, (FSDP, TENSOR))
W_DD = P(FSDP, None)  # a map whose result every device has whole
W_NC = P(None, FSDP)  # the tower's positions
W_HWIC = P(None, None, None, FSDP)  # the tower's patches


def platform() -> str:
    """What the current mesh is made of: cpu, gpu or tpu (also one that is only compiled for)."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def per_device(function, in_specs, out_specs):
    """`function` over each device's own part of its arguments, split as `in_specs` says, or brought
    into that split; what crosses devices is written in it."""
    mapped = jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return lambda *args: mapped(*map(jax.sharding.reshard, args, in_specs))


def tensor_shards() -> int:
    """How many ways the current mesh splits heads and MLP widths."""
    return jax.sharding.get_abstract_mesh().shape[TENSOR]


def batch_shards() -> int:
    """How many ways the current mesh splits the rows of a batch."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in ROWS)


def gathered(spec: P) -> P:
    """The spec of a weight at the moment it is used: whole along `fsdp`, still split along
    `tensor`."""
    return P(*(axis if axis == TENSOR else None for axis in spec))


def gather(weight, spec: P):
    """A weight split as `spec` says, as `gathered(spec)`. Typed so that its gradient is scattered
    over `fsdp` and what is left of it summed over `data`: replicas exchange their shards only. One
    that is whole already is returned as it is."""
    if jax.typeof(weight).sharding.spec.partitions == gathered(spec).partitions:
        return weight
    weight = jax.sharding.reshard(weight, P(*spec, reduced={DATA}))
    return jax.sharding.reshard(weight, P(*gathered(spec), reduced=set(ROWS)))


def mesh_shape(data: int, fsdp: int, tensor: int, devices: int) -> tuple[int, int, int]:
    """Sizes of the three axes; one of them may be -1, "the devices that are left".

    Raises ValueError when the product is not the number of devices.
    """
    sizes = [data, fsdp, tensor]
    asked = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(
            f"mesh ({asked}): each axis is at least 1, and at most one is -1 (the devices left)"
        )
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        at = sizes.index(-1)
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
            f"mesh ({asked}): {'x'.join(map(str, sizes))}={product} of {devices} devices; choose "
            f"axes whose product is {devices}, or leave one at -1"
        )
    return tuple(sizes)


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
    """An explicit-sharding mesh over all devices (or those given); see `mesh_shape` for -1 and
    errors."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(data, fsdp, tensor, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Explicit,) * 3, devices=devices)


@contextlib.contextmanager
def traced_on(data: int, fsdp: int, tensor: int, devices: int):
    """Within it, shapes are traced as on `make_mesh` over devices that need not be there, whatever
    mesh is set. See `mesh_shape` for -1 and errors."""
    shape = mesh_shape(data, fsdp, tensor, devices)
    mesh = jax.sharding.AbstractMesh(shape, AXES, axis_types=(AxisType.Explicit,) * 3)
    # JAX refuses to go from a mesh to one of another size at once.
    none = jax.sharding.AbstractMesh((), ())
    with jax.sharding.use_abstract_mesh(none), jax.sharding.use_abstract_mesh(mesh):
        yield


def concrete(abstract):
    """Gives every leaf of a `jax.eval_shape` tree the current mesh, with the spec found while
    tracing."""
    mesh = jax.sharding.get_mesh()

    def put(x):
        spec = x.sharding.spec if x.sharding is not None else P()
        return x.update(sharding=NamedSharding(mesh, spec))

    return jax.tree.map(put, abstract)


def mesh_context(mesh: jax.sharding.Mesh) -> contextlib.AbstractContextManager:
    """`with mesh_context(mesh):` uses `mesh` for a while (tests, ahead-of-time compilation)."""
    return jax.set_mesh(mesh)


def fitting(spec: P, shape: tuple[int, ...]) -> P:
    """The spec without the axes that do not divide their dimension: a small one is whole on every
    device."""
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
    return jax.lax.axis_index(TENSOR)


def gather_rows(kernel):
    """A kernel split as W_DF, whole along its rows."""
    return jax.lax.all_gather(kernel, FSDP, axis=0, tiled=True)


def sum_to_rows(kernel):
    """The inverse of `gather_rows` for gradients: each device's, summed over the rows of a batch,
    its part."""
    return jax.lax.psum(jax.lax.psum_scatter(kernel, FSDP, scatter_dimension=0, tiled=True), DATA)


def sum_to_columns(table, spec: P):
    """Gradients of a whole table [V, D], each device's for its rows of the batch, to the sum split
    as W_VD is, or whole for any other `spec`."""
    if spec != W_VD:
        return sum_over_rows(table)
    part = jax.lax.psum_scatter(table, FSDP, scatter_dimension=1, tiled=True)
    width = part.shape[1] // tensor_shards()
    part = jax.lax.dynamic_slice_in_dim(part, tensor_index() * width, width, 1)
    return jax.lax.psum(part, DATA)


def sum_over_rows(x):
    """Over all devices that have rows of the batch of their own."""
    return jax.lax.psum(x, ROWS)


def largest(x):
    """Over all devices."""
    return jax.lax.pmax(x, AXES)


def sum_of_vocabulary(x):
    """Over the devices that share a vocabulary."""
    return jax.lax.psum(x, TENSOR) if tensor_shards() > 1 else x


def largest_of_vocabulary(x):
    """Over the devices that share a vocabulary."""
    return jax.lax.pmax(x, TENSOR) if tensor_shards() > 1 else x
