"""Attention of packed rows by kernels for NVIDIA's GPUs, Ampere and later: Pallas, compiled by
Triton (FlashAttention-2, arXiv 2307.08691).

A query sees the keys of one interval, and a key is seen by the queries of one. So each kernel
visits the tiles from the lowest to the highest that its own tile has a pair in. (JAX's and
tokamax's kernels compute and mask the tiles of other examples, tokamax in the backward pass.)

Keys and queries have a backward kernel each, which makes the scores again: nothing is added up
atomically, so that results repeat bit for bit.
Letters: B rows, T tokens, H heads, K head size. `interpret` runs the kernels on CPU, for tests.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as backend

from janus_jax.model.kernels import MASKED, SAVED, einsum, padded, starts, to_length

# Tokens of a tile, and the warps that compute it. With these the kernels keep all in registers, for
# heads of 128 on A100 (ptxas 12.9: 241, 172 and 174 a thread) and on H100 (187, 172 and 240), and
# visit 1.2 times the pairs that examples of 700 tokens have; tiles of 128 queries visit 1.4 times.
TILE = 64
FORWARD_WARPS = 4
BACKWARD_WARPS = 8


def of_rows(q, k, v, segment_ids, last=None, interpret: bool = False):
    """`attention.packed` of one device's rows. last: of the keys that each query sees, int32 [B, T];
    None: itself."""
    return _within(q, k, v, segment_ids, True, interpret, last)


def of_pictures(q, k, v, interpret: bool = False):
    """`attention.full` of one device's pictures."""
    return _within(q, k, v, jnp.zeros(q.shape[:2], jnp.int32), False, interpret)


def _within(q, k, v, segment_ids, causal, interpret, reach=None):
    """Attention within each example."""
    t, size = q.shape[1], q.shape[-1]
    q, k, v, ids = padded(math.ceil(t / TILE) * TILE, q, k, v, segment_ids)
    room = max(16, pl.next_power_of_2(size)) - size  # Triton's tiles are powers of two
    q, k, v = (jnp.pad(x, [(0, 0)] * 3 + [(0, room)]) for x in (q, k, v))
    t_whole = ids.shape[1]
    own = jnp.broadcast_to(jnp.arange(t_whole), ids.shape)
    first = starts(ids)
    last = t_whole - 1 - starts(ids[:, ::-1])[:, ::-1]
    sees = (first, own if causal else last)
    seen = (own if causal else first, last)
    if reach is not None:
        reach = to_length(reach, t_whole)
        # It ascends: the first query that sees a key is the first whose last key is no earlier.
        sees = (first, reach)
        seen = (jax.vmap(jnp.searchsorted)(reach, own), last)
    return _attend(q, k, v, sees, seen, size**-0.5, interpret)[:, :t, :, :size]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attend(q, k, v, sees, seen, scale, interpret):
    return _forward(q, k, v, sees, seen, scale, interpret)[0]


def _forward(q, k, v, sees, seen, scale, interpret):
    b, t, h, _ = q.shape
    lse = jax.ShapeDtypeStruct((b, h, t), jnp.float32)
    kernel = functools.partial(_of_queries, scale=scale)
    out, lse = _call(kernel, FORWARD_WARPS, (q, *sees), (k, v), (q, lse), interpret)
    out = checkpoint_name(out, SAVED)
    lse = checkpoint_name(lse, SAVED)
    return out, (q, k, v, sees, seen, out, lse)


def _backward(scale, interpret, saved, g):
    q, k, v, sees, seen, out, lse = saved
    delta = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1).swapaxes(1, 2)  # [B, H, T]
    of_queries = (q, g, lse, delta, *sees)
    kernel = functools.partial(_to_queries, scale=scale)
    (dq,) = _call(kernel, BACKWARD_WARPS, of_queries, (k, v), (q,), interpret)
    kernel = functools.partial(_to_keys, scale=scale)
    dk, dv = _call(kernel, BACKWARD_WARPS, (k, v, *seen), of_queries, (k, v), interpret)
    return dq, dk, dv, None, None


_attend.defvjp(_forward, _backward)


def _call(kernel, warps, own, visited, results, interpret):
    """`kernel` for each tile of each row and head. Arrays [B, T, H, K], [B, H, T] and [B, T].

    own: of which it is given its tile.
    visited: of which it is given the row.
    results: the shapes of what it makes, in its tile.
    """
    b, t, h, _ = own[0].shape

    def spec(x, size, at):
        shape, index = {
            4: ((None, size, None, x.shape[-1]), lambda i, b, h: (b, at(i), h, 0)),
            3: ((None, None, size), lambda i, b, h: (b, h, at(i))),
            2: ((None, size), lambda i, b, h: (b, at(i))),
        }[len(x.shape)]
        return pl.BlockSpec(shape, index)

    its_own = lambda x: spec(x, TILE, lambda i: i)
    whole = lambda x: spec(x, t, lambda i: 0)
    return pl.pallas_call(
        kernel,
        grid=(t // TILE, b, h),
        in_specs=[*map(its_own, own), *map(whole, visited)],
        out_specs=[*map(its_own, results)],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        compiler_params=backend.CompilerParams(num_warps=warps, num_stages=2),
        interpret=interpret,
        name=kernel.func.__name__.strip("_"),
    )(*own, *visited)


def _visit(low, high, add, carry):
    """`add(its tokens, the first, carry)` for each tile from that of the lowest of `low` to that of
    the highest of `high`, int32 [n] each."""
    begin = jax.lax.div(jnp.min(low), TILE)
    end = jax.lax.div(jnp.max(high), TILE) + 1
    return jax.lax.fori_loop(
        begin, end, lambda j, c: add(pl.ds(j * TILE, TILE), j * TILE, c), carry
    )


def _masked(products, scale, key, low, high):
    """Scores for exp2, where a key is in its query's interval."""
    return jnp.where((low <= key) & (key <= high), products * (scale * math.log2(math.e)), MASKED)


def _of_queries(q_ref, low_ref, high_ref, k_ref, v_ref, out_ref, lse_ref, scale):
    q, low, high = q_ref[...], low_ref[...], high_ref[...]

    def add(at, j, carry):
        top, total, out = carry
        keys = j + jnp.arange(TILE)
        products = einsum("qk,sk->qs", q, k_ref[at, :])
        scores = _masked(products, scale, keys, low[:, None], high[:, None])
        # A query may have no pair in its first tiles. What it adds up there is multiplied by zero
        # in the first that it has one in.
        new = jnp.maximum(top, scores.max(1))
        weights = jnp.exp2(scores - new[:, None])
        shrink = jnp.exp2(top - new)
        part = einsum("qs,sk->qk", weights.astype(v_ref.dtype), v_ref[at, :])
        return new, total * shrink + weights.sum(1), out * shrink[:, None] + part

    start = jnp.full(TILE, MASKED), jnp.zeros(TILE), jnp.zeros(q.shape)
    top, total, out = _visit(low, high, add, start)
    out_ref[...] = (out / total[:, None]).astype(out_ref.dtype)
    lse_ref[...] = top + jnp.log2(total)


def _to_queries(q_ref, g_ref, lse_ref, delta_ref, low_ref, high_ref, k_ref, v_ref, dq_ref, scale):
    q, g, low, high = q_ref[...], g_ref[...], low_ref[...], high_ref[...]
    lse, delta = lse_ref[...][:, None], delta_ref[...][:, None]

    def add(at, j, dq):
        k = k_ref[at, :]
        keys = j + jnp.arange(TILE)
        products = einsum("qk,sk->qs", q, k)
        scores = _masked(products, scale, keys, low[:, None], high[:, None])
        d_scores = jnp.exp2(scores - lse) * (einsum("qk,sk->qs", g, v_ref[at, :]) - delta)
        return dq + einsum("qs,sk->qk", d_scores.astype(k.dtype), k)

    dq = _visit(low, high, add, jnp.zeros(q.shape))
    dq_ref[...] = (dq * scale).astype(dq_ref.dtype)


def _to_keys(
    k_ref, v_ref, since_ref, until_ref,
    q_ref, g_ref, lse_ref, delta_ref, low_ref, high_ref, dk_ref, dv_ref, scale,
):  # fmt: skip
    k, v = k_ref[...], v_ref[...]
    keys = pl.program_id(0) * TILE + jnp.arange(TILE)[:, None]

    def add(at, _, carry):  # keys first: the products with q and g then need no transposition
        dk, dv = carry
        q, g = q_ref[at, :], g_ref[at, :]
        of = lambda ref: ref[at][None]
        scores = _masked(einsum("sk,qk->sq", k, q), scale, keys, of(low_ref), of(high_ref))
        weights = jnp.exp2(scores - of(lse_ref))
        d_scores = weights * (einsum("sk,qk->sq", v, g) - of(delta_ref))
        dv = dv + einsum("sq,qk->sk", weights.astype(g.dtype), g)
        return dk + einsum("sq,qk->sk", d_scores.astype(q.dtype), q), dv

    zeros = jnp.zeros(k.shape)
    dk, dv = _visit(since_ref[...], until_ref[...], add, (zeros, zeros))
    dk_ref[...] = (dk * scale).astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)
