"""What a process holds of arrays that are spread over the devices of several: rows in, weights in
and out."""

from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding

from janus_jax.model import sharding as sh


def batch_share() -> tuple[int, int]:
    """(which share of a batch's rows this process feeds, how many shares there are). Processes
    whose devices hold the same rows, because `tensor` spans them, have the same share."""
    devices = jax.sharding.get_mesh().devices
    owner = np.array([device.process_index for device in devices.flat]).reshape(
        -1, devices.shape[-1]
    )
    share, count = shares(owner)
    return share[jax.process_index()], count


def shares(owner: np.ndarray) -> tuple[dict[int, int], int]:
    """`batch_share` by process. owner: the process of each device, int [blocks of rows, tensor]."""
    held = {int(p): tuple(np.flatnonzero((owner == p).any(1)).tolist()) for p in np.unique(owner)}
    found = sorted(set(held.values()))
    if sum(map(len, found)) != len(owner) or len({len(blocks) for blocks in found}) > 1:
        raise ValueError(
            f"mesh.tensor is {owner.shape[1]}: some rows of a batch would lie partly with one "
            "process and partly with another; it must divide a process's devices, or be a "
            "multiple of them"
        )
    return {process: found.index(blocks) for process, blocks in held.items()}, len(found)


def put_batch(batch: dict) -> dict:
    """This process's rows (numpy; see `batch_share`) as global arrays split over the batch axes."""
    sharding = NamedSharding(jax.sharding.get_mesh(), sh.BATCH)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every process has (numpy) as a global one, of which each keeps its own part.
    (`device_put` would send it all to the other processes, to compare.)"""
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def put_layers(layers: Iterable[np.ndarray], like: jax.ShapeDtypeStruct) -> jax.Array:
    """`put` for a stack, from its layers one by one: a process never holds all of what it keeps a
    part of."""
    parts = {
        str(index): index
        for index in like.sharding.addressable_devices_indices_map(like.shape).values()
    }
    shape = like.sharding.shard_shape(like.shape)
    stacks = {key: np.empty(shape, like.dtype) for key in parts}
    for i, layer in enumerate(layers):
        for key, index in parts.items():
            stacks[key][i] = layer[index[1:]]
    return jax.make_array_from_callback(like.shape, like.sharding, lambda index: stacks[str(index)])


def pieces(x: jax.Array, stacked: bool) -> Iterator[np.ndarray]:
    """A global array on every process, whole or (stacked) layer by layer. All processes must go
    through it."""
    if x.is_fully_addressable:
        yield from np.asarray(x) if stacked else [np.asarray(x)]
        return
    for i in range(x.shape[0]) if stacked else [None]:
        yield np.asarray(_gathered(x, i))


@jax.jit
def _gathered(x, i):
    return jax.sharding.reshard(
        x if i is None else jax.lax.dynamic_index_in_dim(x, i, 0, False), sh.REPLICATED
    )
