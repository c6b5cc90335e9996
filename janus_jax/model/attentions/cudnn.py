"""Attention on NVIDIA's GPUs, Hopper and later, in 16 bit, by cuDNN."""

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as lib  # the public one has no segment ids

from janus_jax.model.attentions import blockwise
from janus_jax.model.kernels import starts

SEGMENTS = 64  # examples of a row that the packed layout is given room for


def of_rows(q, k, v, segment_ids):
    """`attention.packed` of one device's rows in cuDNN's packed layout, each example a sequence of
    its own. Rows of more than SEGMENTS examples go the blockwise way, which has no such limit."""
    lengths, offsets, fits = layout(segment_ids)

    def kernel(q, k, v, _):
        return lib.dot_product_attention(
            q, k, v, q_seqlen=lengths, kv_seqlen=lengths, q_offsets=offsets, kv_offsets=offsets,
            scale=q.shape[-1] ** -0.5, mask_type=lib.MaskType.PADDING_CAUSAL,
        )  # fmt: skip

    return jax.lax.cond(fits, kernel, blockwise.of_rows, q, k, v, segment_ids)


def of_pictures(q, k, v):
    """`attention.full` of one device's pictures."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


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
