"""Attention of packed rows in XLA, on any platform: a loop over the tiles of a row that hold a pair
of one example. No T x T array is held. H heads, T tokens, K head size."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from janus_jax.model import sharding as sh
from janus_jax.model.kernels import (
    MASKED,
    SAVED,
    TILE,
    einsum,
    highest_tiles,
    lowest_tiles,
    padded,
    to_length,
)

CPU_TILE = 128


def of_rows(q, k, v, segment_ids, last=None, tile: int | None = None):
    """`attention.packed` of one device's rows. The backward pass makes each tile's scores again
    from the logsumexp. last: of the keys that each query sees, int32 [B, T]; None: itself. tile:
    tokens of one; by default fewer on a CPU, which loses nothing by small products."""
    t = q.shape[1]
    tile = min(tile or (CPU_TILE if sh.platform() == "cpu" else TILE), t)
    t_whole = math.ceil(t / tile) * tile
    q, k, v, segment_ids = padded(t_whole, q, k, v, segment_ids)
    bounds = [lowest_tiles(segment_ids, tile)]
    if last is not None:
        last = to_length(last, t_whole)
        bounds += [highest_tiles(last, tile), last]
    heads_first = lambda x: x.swapaxes(1, 2)
    out = jax.lax.map(
        lambda row: _row(*row, tile),
        (heads_first(q), heads_first(k), heads_first(v), segment_ids, bounds),
    )
    return heads_first(out)[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _row(q, k, v, ids, bounds, tile):  # [H, T, K], int32 [T] -> [H, T, K]
    """bounds: the first tile of keys of each tile of queries, int32 [T / tile]; where a query sees more
    than itself, the last such tile too, and each query's last key, int32 [T]."""
    return _row_forward(q, k, v, ids, bounds, tile)[0]


def _slice(x, i, tile, axis=1):
    return jax.lax.dynamic_slice_in_dim(x, i * tile, tile, axis)


def _scores(q, k, ids, bounds, i, j, tile):
    """float32 [H, tile, tile]: queries of tile i, keys of tile j."""
    scores = einsum("hqk,hsk->hqs", _slice(q, i, tile), _slice(k, j, tile))
    same = _slice(ids, i, tile, 0)[:, None] == _slice(ids, j, tile, 0)
    at = jnp.arange(tile)
    last = i * tile + at[:, None] if len(bounds) == 1 else _slice(bounds[2], i, tile, 0)[:, None]
    return jnp.where(same & (last >= j * tile + at), scores * q.shape[-1] ** -0.5, MASKED)


def _row_forward(q, k, v, ids, bounds, tile):
    h, t, d = q.shape
    lower = bounds[0]

    def of_queries(i):
        def add(j, carry):
            top, total, out = carry
            scores = _scores(q, k, ids, bounds, i, j, tile)
            new = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new[..., None])
            shrink = jnp.exp(top - new)
            part = einsum("hqs,hsk->hqk", weights.astype(v.dtype), _slice(v, j, tile))
            return new, total * shrink + weights.sum(-1), out * shrink[..., None] + part

        # From the diagonal down: every query sees itself, so its maximum is true from the first
        # tile on. What a query adds up in tiles beyond its own last is multiplied by zero in the
        # first tile that it has a pair in.
        start = (jnp.full((h, tile), MASKED), jnp.zeros((h, tile)), jnp.zeros((h, tile, d)))
        upper = i if len(bounds) == 1 else bounds[1][i]
        top, total, out = jax.lax.fori_loop(
            0, upper - lower[i] + 1, lambda n, c: add(upper - n, c), start
        )
        return (out / total[..., None]).astype(q.dtype), top + jnp.log(total)

    out, lse = jax.lax.map(of_queries, jnp.arange(t // tile))  # [T / tile, H, tile, ...]
    out = out.swapaxes(0, 1).reshape(h, t, d)
    lse = lse.swapaxes(0, 1).reshape(h, t)
    out = checkpoint_name(out, SAVED)
    lse = checkpoint_name(lse, SAVED)
    return out, (q, k, v, ids, bounds, out, lse)


def _row_backward(tile, saved, g):
    q, k, v, ids, bounds, out, lse = saved
    lower = bounds[0]
    h, t, d = q.shape
    delta = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)  # [H, T]

    def of_queries(carry, i):
        queries = _slice(q, i, tile)
        above = _slice(g, i, tile)
        lse_i = _slice(lse, i, tile)[..., None]
        delta_i = _slice(delta, i, tile)[..., None]

        def add(j, carry):
            dq, dk, dv = carry
            weights = jnp.exp(_scores(q, k, ids, bounds, i, j, tile) - lse_i)
            d_weights = einsum("hqk,hsk->hqs", above, _slice(v, j, tile))
            d_scores = (weights * (d_weights - delta_i) * d**-0.5).astype(q.dtype)
            dq = dq + einsum("hqs,hsk->hqk", d_scores, _slice(k, j, tile))
            add_to = lambda x, y: jax.lax.dynamic_update_slice_in_dim(
                x, _slice(x, j, tile) + y, j * tile, 1
            )
            dk = add_to(dk, einsum("hqs,hqk->hsk", d_scores, queries))
            return dq, dk, add_to(dv, einsum("hqs,hqk->hsk", weights.astype(g.dtype), above))

        upper = i if len(bounds) == 1 else bounds[1][i]
        dq, *carry = jax.lax.fori_loop(lower[i], upper + 1, add, (jnp.zeros((h, tile, d)), *carry))
        return tuple(carry), dq.astype(q.dtype)

    zeros = jnp.zeros((h, t, d))
    (dk, dv), dq = jax.lax.scan(of_queries, (zeros, zeros), jnp.arange(t // tile))
    dq = dq.swapaxes(0, 1).reshape(h, t, d)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_row.defvjp(_row_forward, _row_backward)
