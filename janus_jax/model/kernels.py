"""Attention of packed rows by kernels of the accelerators, on one device; see `model.attention`.

Letters: B rows, T tokens, H heads, K head size. `interpret` runs a kernel on CPU, slowly, for tests.
"""

import math

import jax
import jax.numpy as jnp

from janus_jax.model.blockwise import SAVED, TILE, blockwise, lowest_tiles, padded, starts

WARPS = 8  # of a program of Triton's kernels
SEGMENTS = 64  # examples of a row that cuDNN's packed layout is given room for


def splash(q, k, v, segment_ids, interpret: bool = False):
    """`packed` of one device's rows by JAX's splash attention, with the fused backward kernel. Which tiles hold a
    pair is told row by row, so that tiles between two examples are passed over, not masked."""
    from jax.experimental.pallas.ops.tpu import splash_attention as lib
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

    t, d = q.shape[1], q.shape[-1]
    t_whole = math.ceil(t / 128) * 128
    tile = next(n for n in (TILE, 256, 128) if t_whole % n == 0)
    q, k, v, segment_ids = padded(t_whole, q * d**-0.5, k, v, segment_ids)
    blocks = lib.BlockSizes(
        block_q=tile, block_kv=tile, block_kv_compute=tile, block_q_dkv=tile, block_kv_dkv=tile,
        block_kv_dkv_compute=tile, use_fused_bwd_kernel=True,
    )  # fmt: skip

    def row(q, k, v, ids, lower):
        i, j = jnp.arange(t_whole // tile)[:, None], jnp.arange(t_whole // tile)
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
    rows = (heads_first(q), heads_first(k), heads_first(v), segment_ids, lowest_tiles(segment_ids, tile))
    return heads_first(jax.lax.map(lambda r: row(*r), rows))[:, :t]


def _causal(queries, keys):
    return queries >= keys


def triton(q, k, v, segment_ids, interpret: bool = False):
    """`packed` of one device's rows by JAX's Pallas kernel, which passes over tiles above the diagonal."""
    from jax.experimental.pallas.ops.gpu import attention as lib

    t = q.shape[1]
    # The largest tiles tried whose kernels, for heads of 128, keep all in registers on A100 and H100 (ptxas 12.9);
    # with tiles of 64 x 64 and four warps, A100's backward kernel spills 1.2 kB a thread. Shared memory is 54 to 99 kB.
    blocks = lib.BlockSizes(
        block_q=128, block_k=64, block_q_dkv=32, block_kv_dkv=64, block_q_dq=64, block_kv_dq=32
    )
    padded_qkvs = padded(math.ceil(t / 128) * 128, q, k, v, segment_ids)
    # By position: custom_vjp resolves names into positions, the installed versions do not all name them alike.
    out = lib.mha(*padded_qkvs, q.shape[-1] ** -0.5, True, blocks, "triton", WARPS, interpret=interpret)
    return out[:, :t]


def cudnn(q, k, v, segment_ids):
    """`packed` of one device's rows in cuDNN's packed layout, each example a sequence of its own. Rows of more
    than SEGMENTS examples go the blockwise way, which has no such limit."""
    from jax._src.cudnn import fused_attention_stablehlo as lib  # the public one has no segment ids

    lengths, offsets, fits = layout(segment_ids)

    def kernel(q, k, v, _):
        return lib.dot_product_attention(
            q, k, v, q_seqlen=lengths, kv_seqlen=lengths, q_offsets=offsets, kv_offsets=offsets,
            scale=q.shape[-1] ** -0.5, mask_type=lib.MaskType.PADDING_CAUSAL,
        )  # fmt: skip

    return jax.lax.cond(fits, kernel, blockwise, q, k, v, segment_ids)


def layout(segment_ids):
    """Lengths int32 [B, SEGMENTS] and first tokens int32 [B, SEGMENTS + 1] of each row's examples, -1 where there
    is none, and whether every row has room for all of its own."""
    t = segment_ids.shape[1]
    first = starts(segment_ids) == jnp.arange(t)
    find = lambda row: jnp.nonzero(row, size=SEGMENTS + 1, fill_value=t)[0].astype(jnp.int32)
    begin = jax.vmap(find)(first)
    there = begin < t
    lengths = jnp.where(there, jnp.diff(begin, axis=1, append=t), -1)[:, :-1]
    fits = ~there[:, -1].any()
    return lengths, jnp.where(there, begin, -1), fits
