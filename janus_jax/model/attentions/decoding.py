"""Attention of each row's newest token to its cache, by kernels for NVIDIA's GPUs: Pallas, compiled
by Triton.

One kernel rotates query and key, writes key and value into the cache in place, and reads the places
before them: what a row has filled, not the whole cache. Where rows and heads are too few to fill a
GPU, the places are shared among blocks, and a second kernel adds up what they found (the online
softmax of FlashAttention, arXiv 2205.14135, over parts of the keys at once).
Letters: B rows, H heads, S places, K head size, P parts. `interpret` runs the kernels on CPU, for
tests.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as backend

from janus_jax.model.kernels import MASKED

TILE = 64  # places that a block reads at once
BLOCKS = 128  # that fill a GPU


def shares(heads: int, places: int) -> int:
    """Among how many blocks the places of each of so many heads, of all rows, are shared: a power of
    two, as the sides of Triton's tiles are."""
    most = min(-(-BLOCKS // heads), places // TILE)
    return 1 << (most.bit_length() - 1)


def attended(qkv, cos, sin, keys, values, at, interpret: bool = False):
    """softmax(q k / sqrt(K)) v of one token of each row, the softmax in float32.

    qkv: of the new token, not rotated yet, [B, 3, H, K].
    cos, sin: of its rotary angles, float32 [B, 1, 1, K / 2].
    keys, values: the cache, [B, H, S, K], S a multiple of TILE.
    at: int32 [B], the place that the token takes; it sees those before, and itself.

    Returns [B, 1, H, K] in the cache's type, and the cache with key and value written. Raises
    ValueError for other lengths of a cache.
    """
    b, _, h, size = qkv.shape
    places = keys.shape[2]
    if places % TILE:
        raise ValueError(f"a cache of {places} places: no multiple of {TILE}")
    parts = shares(b * h, places)
    new = pl.BlockSpec((None, 3, None, size), lambda i, h, b: (b, 0, h, 0))
    angle = pl.BlockSpec((None, None, None, size // 2), lambda i, h, b: (b, 0, 0, 0))
    head = pl.BlockSpec((None, None, places, size), lambda i, h, b: (b, h, 0, 0))
    part = pl.BlockSpec((None, None, None, size), lambda i, h, b: (b, i, h, 0))
    number = pl.BlockSpec((None, None, None), lambda i, h, b: (b, i, h))
    numbers = jax.ShapeDtypeStruct((b, parts, h), jnp.float32)
    kind = keys.dtype if parts == 1 else jnp.float32
    out, tops, totals, keys, values = pl.pallas_call(
        functools.partial(_attend, parts=parts),
        grid=(parts, h, b),
        in_specs=[new, angle, angle, pl.BlockSpec((None,), lambda i, h, b: (b,)), head, head],
        out_specs=[part, number, number, head, head],
        out_shape=[
            jax.ShapeDtypeStruct((b, parts, h, size), kind),
            numbers,
            numbers,
            *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (keys, values)),
        ],
        input_output_aliases={4: 3, 5: 4},
        compiler_params=backend.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="attend_to_cache",
    )(qkv, cos, sin, at, keys, values)
    if parts > 1:
        whole = pl.BlockSpec((None, parts, None, size), lambda h, b: (b, 0, h, 0))
        number = pl.BlockSpec((None, parts, None), lambda h, b: (b, 0, h))
        out = pl.pallas_call(
            _join,
            grid=(h, b),
            in_specs=[whole, number, number],
            out_specs=pl.BlockSpec((None, None, None, size), lambda h, b: (b, 0, h, 0)),
            out_shape=jax.ShapeDtypeStruct((b, 1, h, size), keys.dtype),
            compiler_params=backend.CompilerParams(num_warps=1, num_stages=1),
            interpret=interpret,
            name="join",
        )(out, tops, totals)
    return out, keys, values


def _attend(
    qkv_ref, cos_ref, sin_ref, at_ref, keys_ref, values_ref,
    out_ref, top_ref, total_ref, new_keys_ref, new_values_ref, parts,
):  # fmt: skip
    """A part of one head's places. The first has the token itself."""
    half = qkv_ref.shape[1] // 2
    halves = pl.ds(0, half), pl.ds(half, half)
    cos, sin = cos_ref[...], sin_ref[...]
    at = jnp.minimum(at_ref[...], keys_ref.shape[0] - 1)  # nobody else's place is written
    first = pl.program_id(0) == 0
    scale = math.log2(math.e) * (2 * half) ** -0.5

    def rotated(i):  # as in layers.rotate; float32, rounded as the cache is
        a, b = (qkv_ref[i, part].astype(jnp.float32) for part in halves)
        both = a * cos - b * sin, b * cos + a * sin
        return [x.astype(keys_ref.dtype).astype(jnp.float32) for x in both]

    query, key = rotated(0), rotated(1)
    value = qkv_ref[2, :].astype(values_ref.dtype)

    @pl.when(first)
    def _():
        for part, x in zip(halves, key):
            new_keys_ref[at, part] = x.astype(keys_ref.dtype)
        new_values_ref[at, :] = value

    def add(j, carry):
        top, total, out = carry
        here = pl.ds(j * TILE, TILE)
        seen = j * TILE + jnp.arange(TILE) < at
        read = [keys_ref[here, part].astype(jnp.float32) for part in halves]
        products = sum((x * q[None]).sum(1) for x, q in zip(read, query))
        scores = jnp.where(seen, products * scale, MASKED)
        new = jnp.maximum(top, scores.max())
        weights = jnp.where(seen, jnp.exp2(scores - new), 0.0)
        found = (weights[:, None] * values_ref[here, :].astype(jnp.float32)).sum(0)
        shrink = jnp.exp2(top - new)
        return new, total * shrink + weights.sum(), out * shrink + found

    itself = sum((q * k).sum() for q, k in zip(query, key)) * scale
    start = (
        jnp.where(first, itself, MASKED),
        first.astype(jnp.float32),
        jnp.where(first, value.astype(jnp.float32), 0.0),
    )
    tiles = jax.lax.div(at + TILE - 1, TILE)
    share = jax.lax.div(tiles + parts - 1, parts)
    begin = pl.program_id(0) * share
    end = jnp.minimum(begin + share, tiles)
    top, total, out = jax.lax.fori_loop(begin, end, add, start)
    top_ref[...] = top
    total_ref[...] = total
    out_ref[...] = (out / total if parts == 1 else out).astype(out_ref.dtype)


def _join(outs_ref, tops_ref, totals_ref, out_ref):
    """Of the parts of a head [P, K] with their largest scores and sums."""
    tops = tops_ref[...]
    weights = jnp.exp2(tops - tops.max())
    total = (weights * totals_ref[...]).sum()
    out_ref[...] = ((outs_ref[...] * weights[:, None]).sum(0) / total).astype(out_ref.dtype)
