"""Attention of packed rows on TPUs: JAX's splash attention kernel. `interpret` runs it on CPU,
slowly, for tests."""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as lib
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

from janus_jax.model.kernels import SAVED, TILE, highest_tiles, lowest_tiles, padded, to_length


def of_rows(q, k, v, segment_ids, last=None, interpret: bool = False):
    """`attention.packed` of one device's rows, with the fused backward kernel. Which tiles hold a
    pair is told row by row, so that tiles between two examples are passed over, not masked. last: of
    the keys that each query sees, int32 [B, T]; None: itself."""
    t = q.shape[1]
    d = q.shape[-1]
    t_whole = math.ceil(t / 128) * 128
    tile = next(n for n in (TILE, 256, 128) if t_whole % n == 0)
    q, k, v, segment_ids = padded(t_whole, q * d**-0.5, k, v, segment_ids)
    blocks = lib.BlockSizes(
        block_q=tile, block_kv=tile, block_kv_compute=tile, block_q_dkv=tile, block_kv_dkv=tile,
        block_kv_dkv_compute=tile, use_fused_bwd_kernel=True,
    )  # fmt: skip

    def row(q, k, v, ids, lower, own=None):
        i = jnp.arange(t_whole // tile)[:, None]
        j = jnp.arange(t_whole // tile)
        upper = i if own is None else highest_tiles(own[None], tile)[0][:, None]
        visited = ((lower[:, None] <= j) & (j <= upper)).astype(jnp.int32)
        # Of the tiles of queries with a pair in keys j; lower and upper ascend.
        first = j if own is None else jnp.sum(upper < j, 0)
        last = jnp.sum(lower[:, None] <= j, 0) - 1
        order = jnp.arange(t_whole, dtype=jnp.int32) if own is None else own
        # Where nothing is to be computed, name a tile that is needed anyway: nothing is fetched.
        info = lambda at: MaskInfo(at[None], None, visited[None], None, order)
        kernel = lib.splash_attention_kernel.SplashAttentionKernel(
            info(jnp.clip(j, lower[:, None], upper)), None, info(jnp.clip(i, first, last)),
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
        *([] if last is None else [to_length(last, t_whole)]),
    )
    return heads_first(jax.lax.map(lambda r: row(*r), rows))[:, :t]


def _causal(queries, keys):
    return queries >= keys
