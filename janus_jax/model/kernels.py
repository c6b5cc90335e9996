"""What one device computes: products that are as exact as their type says, and the attention of
packed rows, tile by tile in XLA and by the accelerators' own kernels.

Unless told otherwise TPUs multiply float32 in bfloat16 and NVIDIA's GPUs in TF32, without a word.
So every product of the package names its precision: float32 means float32 on every platform,
whatever the caller's `jax_default_matmul_precision` is.

Of attention see `model.attention`, which chooses. The tiles of a row that hold a pair of one
example are lower[i]..i for the i-th tile of queries, so `blockwise` visits these and no others, and
no T x T array is held. Letters: B rows, T tokens, H heads, K head size. `interpret` runs a kernel
on CPU, slowly, for tests.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

TILE = 512
MASKED = -1e30
# the name under which a remat policy finds what the backward pass needs of an attention
SAVED = "attention"
WARPS = 8  # of a program of Triton's kernels
SEGMENTS = 64  # examples of a row that cuDNN's packed layout is given room for

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


def padded(t: int, *arrays):
    """Arrays [B, T, ...] with zeros up to `t` tokens; the last, segment ids, gets an id that no
    example has."""
    room = lambda x: [(0, 0), (0, t - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
    *arrays, ids = arrays
    return [*(jnp.pad(x, room(x)) for x in arrays), jnp.pad(ids, room(ids), constant_values=-1)]


def blockwise(q, k, v, segment_ids, tile: int = TILE):
    """`packed` of one device's rows. The backward pass makes each tile's scores again from the
    logsumexp."""
    t = q.shape[1]
    tile = min(tile, t)
    t_whole = math.ceil(t / tile) * tile
    q, k, v, segment_ids = padded(t_whole, q, k, v, segment_ids)
    heads_first = lambda x: x.swapaxes(1, 2)
    out = jax.lax.map(
        lambda row: _row(*row, tile),
        (
            heads_first(q),
            heads_first(k),
            heads_first(v),
            segment_ids,
            lowest_tiles(segment_ids, tile),
        ),
    )
    return heads_first(out)[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _row(q, k, v, ids, lower, tile):  # [H, T, K], int32 [T], int32 [T / tile] -> [H, T, K]
    return _row_forward(q, k, v, ids, lower, tile)[0]


def _slice(x, i, tile, axis=1):
    return jax.lax.dynamic_slice_in_dim(x, i * tile, tile, axis)


def _scores(q, k, ids, i, j, tile):
    """float32 [H, tile, tile]: queries of tile i, keys of tile j."""
    scores = einsum("hqk,hsk->hqs", _slice(q, i, tile), _slice(k, j, tile))
    same = _slice(ids, i, tile, 0)[:, None] == _slice(ids, j, tile, 0)
    at = jnp.arange(tile)
    return jnp.where(
        same & (i * tile + at[:, None] >= j * tile + at), scores * q.shape[-1] ** -0.5, MASKED
    )


def _row_forward(q, k, v, ids, lower, tile):
    h, t, d = q.shape

    def of_queries(i):
        def add(j, carry):
            top, total, out = carry
            scores = _scores(q, k, ids, i, j, tile)
            new = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new[..., None])
            shrink = jnp.exp(top - new)
            part = einsum("hqs,hsk->hqk", weights.astype(v.dtype), _slice(v, j, tile))
            return new, total * shrink + weights.sum(-1), out * shrink[..., None] + part

        # From the diagonal down: every query sees itself, so its maximum is true from the first
        # tile on.
        start = (jnp.full((h, tile), MASKED), jnp.zeros((h, tile)), jnp.zeros((h, tile, d)))
        top, total, out = jax.lax.fori_loop(0, i - lower[i] + 1, lambda n, c: add(i - n, c), start)
        return (out / total[..., None]).astype(q.dtype), top + jnp.log(total)

    out, lse = jax.lax.map(of_queries, jnp.arange(t // tile))  # [T / tile, H, tile, ...]
    out = out.swapaxes(0, 1).reshape(h, t, d)
    lse = lse.swapaxes(0, 1).reshape(h, t)
    out = checkpoint_name(out, SAVED)
    lse = checkpoint_name(lse, SAVED)
    return out, (q, k, v, ids, lower, out, lse)


def _row_backward(tile, saved, g):
    q, k, v, ids, lower, out, lse = saved
    h, t, d = q.shape
    delta = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)  # [H, T]

    def of_queries(carry, i):
        queries = _slice(q, i, tile)
        above = _slice(g, i, tile)
        lse_i = _slice(lse, i, tile)[..., None]
        delta_i = _slice(delta, i, tile)[..., None]

        def add(j, carry):
            dq, dk, dv = carry
            weights = jnp.exp(_scores(q, k, ids, i, j, tile) - lse_i)
            d_weights = einsum("hqk,hsk->hqs", above, _slice(v, j, tile))
            d_scores = (weights * (d_weights - delta_i) * d**-0.5).astype(q.dtype)
            dq = dq + einsum("hqs,hsk->hqk", d_scores, _slice(k, j, tile))
            add_to = lambda x, y: jax.lax.dynamic_update_slice_in_dim(
                x, _slice(x, j, tile) + y, j * tile, 1
            )
            dk = add_to(dk, einsum("hqs,hqk->hsk", d_scores, queries))
            return dq, dk, add_to(dv, einsum("hqs,hqk->hsk", weights.astype(g.dtype), above))

        dq, *carry = jax.lax.fori_loop(lower[i], i + 1, add, (jnp.zeros((h, tile, d)), *carry))
        return tuple(carry), dq.astype(q.dtype)

    zeros = jnp.zeros((h, t, d))
    (dk, dv), dq = jax.lax.scan(of_queries, (zeros, zeros), jnp.arange(t // tile))
    dq = dq.swapaxes(0, 1).reshape(h, t, d)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_row.defvjp(_row_forward, _row_backward)


# Kernels of the accelerators.


def splash(q, k, v, segment_ids, interpret: bool = False):
    """`packed` of one device's rows by JAX's splash attention, with the fused backward kernel.
    Which tiles hold a pair is told row by row, so that tiles between two examples are passed over,
    not masked."""
    from jax.experimental.pallas.ops.tpu import splash_attention as lib
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

    t = q.shape[1]
    d = q.shape[-1]
    t_whole = math.ceil(t / 128) * 128
    tile = next(n for n in (TILE, 256, 128) if t_whole % n == 0)
    q, k, v, segment_ids = padded(t_whole, q * d**-0.5, k, v, segment_ids)
    blocks = lib.BlockSizes(
        block_q=tile, block_kv=tile, block_kv_compute=tile, block_q_dkv=tile, block_kv_dkv=tile,
        block_kv_dkv_compute=tile, use_fused_bwd_kernel=True,
    )  # fmt: skip

    def row(q, k, v, ids, lower):
        i = jnp.arange(t_whole // tile)[:, None]
        j = jnp.arange(t_whole // tile)
        visited = ((lower[:, None] <= j) & (j <= i)).astype(jnp.int32)
        last = (
            jnp.sum(lower[:, None] <= j, 0) - 1
        )  # of the tiles of queries with a pair in keys j; lower ascends
        order = jnp.arange(t_whole, dtype=jnp.int32)
        # Where nothing is to be computed, name a tile that is needed anyway: nothing is fetched.
        info = lambda at: MaskInfo(at[None], None, visited[None], None, order)
        kernel = lib.splash_attention_kernel.SplashAttentionKernel(
            info(jnp.clip(j, lower[:, None], i)), None, info(jnp.clip(i, j, last)),
            block_sizes=blocks, is_mqa=False, save_residuals=False, attn_logits_soft_cap=None,
            mask_value=lib.splash_attention_kernel.DEFAULT_MASK_VALUE, mask_function=_causal,
            residual_checkpoint_name=SAVED, interpret=interpret,
        )  # fmt: skip
        return kernel(q, k, v, segment_ids=lib.SegmentIds(ids, ids))

    heads_first = lambda x: x.swapaxes(1, 2)
    rows = (
        heads_first(q),
        heads_first(k),
        heads_first(v),
        segment_ids,
        lowest_tiles(segment_ids, tile),
    )
    return heads_first(jax.lax.map(lambda r: row(*r), rows))[:, :t]


def _causal(queries, keys):
    return queries >= keys


def triton(q, k, v, segment_ids, interpret: bool = False):
    """`packed` of one device's rows by JAX's Pallas kernel, which passes over tiles above the
    diagonal."""
    from jax.experimental.pallas.ops.gpu import attention as lib

    t = q.shape[1]
    # The largest tiles tried whose kernels, for heads of 128, keep all in registers on A100 and
    # H100 (ptxas 12.9); with tiles of 64 x 64 and four warps, A100's backward kernel spills 1.2 kB
    # a thread. Shared memory is 54 to 99 kB.
    blocks = lib.BlockSizes(
        block_q=128, block_k=64, block_q_dkv=32, block_kv_dkv=64, block_q_dq=64, block_kv_dq=32
    )
    padded_qkvs = padded(math.ceil(t / 128) * 128, q, k, v, segment_ids)
    # By position: custom_vjp resolves names into positions, the installed versions do not all name
    # them alike.
    out = lib.mha(
        *padded_qkvs, q.shape[-1] ** -0.5, True, blocks, "triton", WARPS, interpret=interpret
    )
    return out[:, :t]


def cudnn(q, k, v, segment_ids):
    """`packed` of one device's rows in cuDNN's packed layout, each example a sequence of its own.
    Rows of more than SEGMENTS examples go the blockwise way, which has no such limit."""
    from jax._src.cudnn import fused_attention_stablehlo as lib  # the public one has no segment ids

    lengths, offsets, fits = layout(segment_ids)

    def kernel(q, k, v, _):
        return lib.dot_product_attention(
            q, k, v, q_seqlen=lengths, kv_seqlen=lengths, q_offsets=offsets, kv_offsets=offsets,
            scale=q.shape[-1] ** -0.5, mask_type=lib.MaskType.PADDING_CAUSAL,
        )  # fmt: skip

    return jax.lax.cond(fits, kernel, blockwise, q, k, v, segment_ids)


def layout(segment_ids):
    """Lengths int32 [B, SEGMENTS] and first tokens int32 [B, SEGMENTS + 1] of each row's examples,
    -1 where there is none, and whether every row has room for all of its own."""
    t = segment_ids.shape[1]
    first = starts(segment_ids) == jnp.arange(t)
    find = lambda row: jnp.nonzero(row, size=SEGMENTS + 1, fill_value=t)[0].astype(jnp.int32)
    begin = jax.vmap(find)(first)
    there = begin < t
    lengths = jnp.where(there, jnp.diff(begin, axis=1, append=t), -1)[:, :-1]
    fits = ~there[:, -1].any()
    return lengths, jnp.where(there, begin, -1), fits
