"""Causal attention of packed rows: a token sees itself and the earlier tokens of its own example.

`packed` is what the transformer trains with. Its kinds compute the same numbers and differ in what
they hold:

    plain      softmax over all T x T scores, in XLA; short rows, and what the others are tested
    against blockwise  a loop over tiles, in XLA on any platform; holds no T x T array, visits no
    tile without a pair
    splash     TPU: JAX's splash attention kernel, told which tiles hold a pair of one example
    triton     NVIDIA, Ampere and later: JAX's Pallas kernel with segment ids
    cudnn      NVIDIA, Hopper and later, 16 bit: cuDNN's packed layout

A kernel without segment ids would let the examples of a row see each other without a word: none is
offered, and `working` compares the kind with `plain`, gradients included, on the devices it will
run on, before it is used.
Letters: B rows, T tokens, H heads, K head size. Inside one device a row's tiles are counted, not
its tokens.
"""

import re

import jax
import jax.numpy as jnp

from janus_jax.model import sharding as sh
from janus_jax.model.config import ATTENTION
from janus_jax.model.kernels import (
    MASKED,
    TILE,
    blockwise,
    cudnn,
    einsum,
    narrow_einsum,
    splash,
    triton,
)

LOCAL = {"blockwise": blockwise, "splash": splash, "triton": triton, "cudnn": cudnn}
SHORT = 512  # tokens of a row up to which all T x T scores are cheaper than a loop


def packed(
    q, k, v, segment_ids, kind: str = "auto"
):  # each [B, T, H, K], int32 [B, T] -> [B, T, H, K]
    """Attention within the examples of each row, scores scaled by K ** -0.5, softmax in float32.

    segment_ids: the examples of a row lie one after the other, each with an id of its own; padding
        is one. Raises ValueError where `kind` is unknown.
    """
    kind = choose(kind, q.shape[1], q.dtype)
    if kind == "plain":
        return plain(q, k, v, causal_mask(segment_ids))
    specs = (*[sh.ACT_BTHK] * 3, sh.BATCH)
    return sh.per_device(LOCAL[kind], specs, sh.ACT_BTHK)(q, k, v, segment_ids)


def working(kind: str, length: int, heads: int, head_size: int, dtype, say=print) -> str:
    """The kind to train rows of `length` tokens with on this machine: `kind` itself once `verify`
    has passed it; for `auto` the devices' own, or, told to `say`, the first after it that passes.

    Raises RuntimeError where none does.
    """
    own = choose(kind, length, dtype)
    after = {"cudnn": ["triton", "blockwise"], "triton": ["blockwise"], "splash": ["blockwise"]}
    candidates = [own, *(after.get(own, ()) if kind == "auto" else ())]
    for candidate, follower in zip(candidates, [*candidates[1:], None]):
        try:
            verify(candidate, length, heads, head_size, dtype)
            return candidate
        except Exception as error:
            where = jax.devices()[0].device_kind
            what = f"{type(error).__name__}: {error}"
            problem = f"model.attention: {candidate} does not work on {where}: {what}"
            if follower is None:
                raise RuntimeError(
                    f"{problem}\nOther kinds: {', '.join(ATTENTION[1:])}; plain always works, in "
                    "more memory"
                ) from error
            say(f"{problem}\nTraining with {follower} instead, which is slower. Please report it.")


def verify(kind: str, length: int, heads: int, head_size: int, dtype):
    """Compares a kind, on this machine's devices, with `plain` in float32: results and gradients of
    rows of several examples. Raises ValueError when they differ by more than the dtype's
    rounding."""
    if kind == "plain":
        return
    rows = sh.batch_shards()
    length = min(length, 4 * TILE)
    draws = jax.random.normal(
        jax.random.key(0), (4, rows, length, heads, head_size), out_sharding=sh.STACK_BTHK
    )
    borders = jnp.array([0, 7, length // 3, length // 2 + 5, length - 40])
    ids = jnp.searchsorted(borders, jnp.arange(length), side="right").astype(jnp.int32)
    ids = jax.sharding.reshard(jnp.broadcast_to(ids, (rows, length)), sh.BATCH)

    def run(kind, dtype, draws, ids):  # not closed over: a constant must be whole on each process
        q, k, v, g = draws.astype(dtype)
        out, back = jax.vjp(lambda *qkv: packed(*qkv, ids, kind), q, k, v)
        return [out, *back(g)]

    # Accelerators multiply float32 in fewer bits unless told otherwise.
    allowed = 16 * float(jnp.finfo(dtype if sh.platform() == "cpu" else jnp.bfloat16).eps)
    run = jax.jit(run, static_argnums=(0, 1))
    for name, want, got in zip(
        ("result", "dq", "dk", "dv"),
        run("plain", jnp.float32, draws, ids),
        run(kind, dtype, draws, ids),
    ):
        error = float(jnp.abs(want - got).max() / jnp.abs(want).max())
        if not error < allowed:
            raise ValueError(
                f"another {name} than plain attention's: off by {error:.2g} of the largest value, "
                f"{allowed:.2g} allowed"
            )


def choose(kind: str, length: int, dtype) -> str:
    """The kind that `auto` means on the current mesh's devices, for rows of `length` tokens."""
    if kind not in ATTENTION:
        raise ValueError(f"model.attention is {kind!r}: known: {', '.join(ATTENTION)}")
    if kind != "auto":
        return kind
    platform = sh.platform()
    if length <= SHORT:
        return "plain"
    if dtype == jnp.float32:
        return "blockwise"  # the accelerators' kernels round what they multiply
    if platform == "gpu":
        capability = str(getattr(jax.devices()[0], "compute_capability", ""))
        if not re.fullmatch(r"\d+\.\d+", capability) and jax.default_backend() == "gpu":
            return "blockwise"  # not NVIDIA's
        hopper = capability and float(capability) >= 9.0
        return "cudnn" if hopper else "triton"
    return "splash" if platform == "tpu" else "blockwise"


def plain(q, k, v, mask=None):
    """softmax(q k / sqrt(K)) v with a float32 softmax. q [B, T, H, K], k and v [B, S, H, K], mask
    bool [B, 1, T, S]; a query that may see nothing gives the mean of v, never NaN."""
    product = einsum if sh.platform() == "cpu" else narrow_einsum
    scores = product("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED)
    weights = jax.nn.softmax(scores).astype(v.dtype)
    return product("bhts,bshk->bthk", weights, v).astype(v.dtype)


def causal_mask(segment_ids):
    """bool [B, 1, T, T]: a token sees the earlier tokens of its own segment and itself."""
    t = segment_ids.shape[1]
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    return same & (jnp.arange(t)[:, None] >= jnp.arange(t))
