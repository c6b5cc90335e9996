"""Attention of packed rows tile by tile, in XLA, on one device; see `model.attention`.

The tiles of a row that hold a pair of one example are lower[i]..i for the i-th tile of queries, so a loop visits
these and no others, and no T x T array is held. Letters: B rows, T tokens, H heads, K head size.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

TILE = 512
MASKED = -1e30
SAVED = "attention"  # the name under which a remat policy finds what the backward pass needs of an attention


def starts(segment_ids):
    """int32 [B, T]: where the example of each token begins in its row."""
    t = jnp.arange(segment_ids.shape[1])
    first = jnp.diff(segment_ids, axis=1, prepend=segment_ids[:, :1]) != 0
    return jax.lax.cummax(jnp.where(first, t, 0), axis=1)


def lowest_tiles(segment_ids, tile: int):
    """int32 [B, T / tile]: the first tile of keys that each tile of queries has a pair in; the last is its own."""
    return starts(segment_ids)[:, ::tile] // tile


def padded(t: int, *arrays):
    """Arrays [B, T, ...] with zeros up to `t` tokens; the last, segment ids, gets an id that no example has."""
    room = lambda x: [(0, 0), (0, t - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    *arrays, ids = arrays
    return [*(jnp.pad(x, room(x)) for x in arrays), jnp.pad(ids, room(ids), constant_values=-1)]


def blockwise(q, k, v, segment_ids, tile: int = TILE):
    """`packed` of one device's rows. The backward pass makes each tile's scores again from the logsumexp."""
    t = q.shape[1]
    tile = min(tile, t)
    t_whole = math.ceil(t / tile) * tile
    q, k, v, segment_ids = padded(t_whole, q, k, v, segment_ids)
    heads_first = lambda x: x.swapaxes(1, 2)
    out = jax.lax.map(
        lambda row: _row(*row, tile),
        (heads_first(q), heads_first(k), heads_first(v), segment_ids, lowest_tiles(segment_ids, tile)),
    )
    return heads_first(out)[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _row(q, k, v, ids, lower, tile):  # [H, T, K], int32 [T], int32 [T / tile] -> [H, T, K]
    return _row_forward(q, k, v, ids, lower, tile)[0]


def _slice(x, i, tile, axis=1):
    return jax.lax.dynamic_slice_in_dim(x, i * tile, tile, axis)


def _scores(q, k, ids, i, j, tile):
    """float32 [H, tile, tile]: queries of tile i, keys of tile j."""
    scores = jnp.einsum(
        "hqk,hsk->hqs", _slice(q, i, tile), _slice(k, j, tile), preferred_element_type=jnp.float32
    )
    same = _slice(ids, i, tile, 0)[:, None] == _slice(ids, j, tile, 0)
    at = jnp.arange(tile)
    return jnp.where(same & (i * tile + at[:, None] >= j * tile + at), scores * q.shape[-1] ** -0.5, MASKED)


def _row_forward(q, k, v, ids, lower, tile):
    h, t, d = q.shape

    def of_queries(i):
        def add(j, carry):
            top, total, out = carry
            scores = _scores(q, k, ids, i, j, tile)
            new = jnp.maximum(top, scores.max(-1))
            weights, shrink = jnp.exp(scores - new[..., None]), jnp.exp(top - new)
            part = jnp.einsum(
                "hqs,hsk->hqk",
                weights.astype(v.dtype),
                _slice(v, j, tile),
                preferred_element_type=jnp.float32,
            )
            return new, total * shrink + weights.sum(-1), out * shrink[..., None] + part

        # From the diagonal down: every query sees itself, so its maximum is true from the first tile on.
        start = (jnp.full((h, tile), MASKED), jnp.zeros((h, tile)), jnp.zeros((h, tile, d)))
        top, total, out = jax.lax.fori_loop(0, i - lower[i] + 1, lambda n, c: add(i - n, c), start)
        return (out / total[..., None]).astype(q.dtype), top + jnp.log(total)

    out, lse = jax.lax.map(of_queries, jnp.arange(t // tile))  # [T / tile, H, tile, ...]
    out, lse = out.swapaxes(0, 1).reshape(h, t, d), lse.swapaxes(0, 1).reshape(h, t)
    out, lse = checkpoint_name(out, SAVED), checkpoint_name(lse, SAVED)
    return out, (q, k, v, ids, lower, out, lse)


def _row_backward(tile, saved, g):
    q, k, v, ids, lower, out, lse = saved
    h, t, d = q.shape
    delta = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)  # [H, T]

    def of_queries(carry, i):
        queries, above = _slice(q, i, tile), _slice(g, i, tile)
        lse_i, delta_i = _slice(lse, i, tile)[..., None], _slice(delta, i, tile)[..., None]

        def add(j, carry):
            dq, dk, dv = carry
            weights = jnp.exp(_scores(q, k, ids, i, j, tile) - lse_i)
            product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
            d_weights = product("hqk,hsk->hqs", above, _slice(v, j, tile))
            d_scores = (weights * (d_weights - delta_i) * d**-0.5).astype(q.dtype)
            dq = dq + product("hqs,hsk->hqk", d_scores, _slice(k, j, tile))
            add_to = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, _slice(x, j, tile) + y, j * tile, 1)
            dk = add_to(dk, product("hqs,hqk->hsk", d_scores, queries))
            return dq, dk, add_to(dv, product("hqs,hqk->hsk", weights.astype(g.dtype), above))

        dq, *carry = jax.lax.fori_loop(lower[i], i + 1, add, (jnp.zeros((h, tile, d)), *carry))
        return tuple(carry), dq.astype(q.dtype)

    zeros = jnp.zeros((h, t, d))
    (dk, dv), dq = jax.lax.scan(of_queries, (zeros, zeros), jnp.arange(t // tile))
    dq = dq.swapaxes(0, 1).reshape(h, t, d)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_row.defvjp(_row_forward, _row_backward)
