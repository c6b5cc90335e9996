"""What one device computes: products that are as exact as their type says, and what the kernels of
attention share.

Unless told otherwise TPUs multiply float32 in bfloat16 and NVIDIA's GPUs in TF32, without a word.
So every product of the package names its precision: float32 means float32 on every platform,
whatever the caller's `jax_default_matmul_precision` is.

The tiles of a row that hold a pair of one example are lower[i]..i for the i-th tile of queries, or
lower[i]..upper[i] where queries see keys behind themselves. B rows, T tokens.
"""

import functools
import re

import jax
import jax.numpy as jnp

TILE = 512
MASKED = -1e30
# the name under which a remat policy finds what the backward pass needs of an attention
SAVED = "attention"

FLOAT32 = jax.lax.Precision.HIGHEST


def precision(dtype) -> jax.lax.Precision:
    """That of a product whose operands are of this type."""
    return FLOAT32 if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def einsum(subscripts: str, x, y) -> jax.Array:
    """float32, of two arrays of one type."""
    exact = precision(x.dtype)
    return jnp.einsum(subscripts, x, y, precision=exact, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def narrow_einsum(subscripts: str, x, y) -> jax.Array:
    """`einsum` whose gradient is rounded to the operands' type before the two products of the
    backward pass, as attention kernels do: accelerators multiply float32 at half the rate."""
    return einsum(subscripts, x, y)


def _narrow_backward(subscripts, saved, g):
    x, y = saved
    of_x, of_y, of_g = re.split(",|->", subscripts)
    product = lambda to, x: einsum(to, g.astype(x.dtype), x).astype(x.dtype)
    return product(f"{of_g},{of_y}->{of_x}", y), product(f"{of_g},{of_x}->{of_y}", x)


narrow_einsum.defvjp(lambda s, x, y: (einsum(s, x, y), (x, y)), _narrow_backward)


def starts(segment_ids):
    """int32 [B, T]: where the example of each token begins in its row."""
    t = jnp.arange(segment_ids.shape[1])
    first = jnp.diff(segment_ids, axis=1, prepend=segment_ids[:, :1]) != 0
    return jax.lax.cummax(jnp.where(first, t, 0), axis=1)


def lowest_tiles(segment_ids, tile: int):
    """int32 [B, T / tile]: the first tile of keys that each tile of queries has a pair in; the last
    is its own."""
    return starts(segment_ids)[:, ::tile] // tile


def highest_tiles(last, tile: int):
    """int32 [B, T / tile]: likewise the last, where each query sees keys up to `last`, int32 [B, T]."""
    return last.reshape(len(last), -1, tile).max(-1) // tile


def to_length(last, t: int):
    """`last` up to `t` tokens, of which those that are filled up see themselves."""
    short = last.shape[1]
    return jnp.concatenate(
        [last, jnp.broadcast_to(jnp.arange(short, t), (len(last), t - short))], 1
    )


def padded(t: int, *arrays):
    """Arrays [B, T, ...] with zeros up to `t` tokens; the last, segment ids, gets an id that no
    example has."""
    room = lambda x: [(0, 0), (0, t - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    *arrays, ids = arrays
    return [*(jnp.pad(x, room(x)) for x in arrays), jnp.pad(ids, room(ids), constant_values=-1)]
