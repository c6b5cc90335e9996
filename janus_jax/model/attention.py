"""Causal attention of packed rows: a token sees itself and the earlier tokens of its own example,
and, where `ahead` says so, the rest of its picture (arXiv 2408.12528 has such rows).

`packed` is what the transformer trains with. Its kinds compute the same numbers and differ in what
they hold:

    plain      softmax over all T x T scores, in XLA; short rows, and what the others must equal
    blockwise  a loop over tiles, in XLA on any platform; visits no tile without a pair
    splash     TPU: JAX's splash attention kernel, told which tiles hold a pair of one example
    triton     NVIDIA, Ampere and later: kernels of our own, which visit no tile without a pair
    cudnn      NVIDIA, Hopper and later, 16 bit: cuDNN's packed layout

A kernel without segment ids would let the examples of a row see each other without a word: none is
offered, and training.attention_check compares the kind with `plain`, gradients included, on the
devices it will run on, before it is used.
Letters: B rows, T tokens, H heads, K head size. Inside one device a row's tiles are counted, not
its tokens.
"""

import importlib
import re

import jax
import jax.numpy as jnp

from janus_jax.model import sharding as sh
from janus_jax.model.config import ATTENTION
from janus_jax.model.kernels import MASKED, einsum, narrow_einsum

OF_PICTURES = ("triton", "cudnn", "native")  # kinds with a kernel for `full`
SHORT = 512  # tokens of a row up to which all T x T scores are cheaper than a loop


def packed(
    q, k, v, segment_ids, kind: str = "auto", ahead=None
):  # each [B, T, H, K], int32 [B, T] -> [B, T, H, K]
    """Attention within the examples of each row, scores scaled by K ** -0.5, softmax in float32.

    segment_ids: the examples of a row lie one after the other, each with an id of its own; padding
        is one. ahead: see `causal_mask`. Raises ValueError where `kind` is unknown.
    """
    kind = choose(kind, q.shape[1], q.dtype, ahead is None)
    if kind == "plain":
        return plain(q, k, v, causal_mask(segment_ids, ahead))
    rows = [segment_ids] if ahead is None else [segment_ids, jnp.arange(q.shape[1]) + ahead]
    specs = (*[sh.ACT_BTHK] * 3, *[sh.BATCH] * len(rows))
    return sh.per_device(local(kind).of_rows, specs, sh.ACT_BTHK)(q, k, v, *rows)


def full(q, k, v, kind: str = "plain"):  # each [B, T, H, K] -> [B, T, H, K]
    """Attention of a picture's tokens to all of them, as the understanding tower has it. Kinds
    without a kernel for it are plain, and so is `auto`: without the check before training."""
    if kind not in OF_PICTURES:
        return plain(q, k, v)
    return sh.per_device(local(kind).of_pictures, (sh.ACT_BTHK,) * 3, sh.ACT_BTHK)(q, k, v)


def local(kind: str):
    """The module that computes a kind on one device, loaded where it is used: what decodes on a CPU
    does not wait for the compilers of kernels."""
    return importlib.import_module(f"janus_jax.model.attentions.{kind}")


def choose(kind: str, length: int, dtype, causal: bool = True) -> str:
    """The kind that `auto` means on the current mesh's devices, for rows of `length` tokens; causal:
    nothing is `ahead`, which cuDNN's packed layout cannot tell."""
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
        return "cudnn" if hopper and causal else "triton"
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


def causal_mask(segment_ids, ahead=None):
    """bool [B, 1, T, T]: a token sees the earlier tokens of its own segment, itself, and as many of
    those behind it as `ahead`, int32 [B, T], says (never fewer than the token before it, less 1)."""
    t = segment_ids.shape[1]
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    last = jnp.arange(t)[:, None]
    if ahead is not None:
        last = last + ahead[:, None, :, None]
    return same & (last >= jnp.arange(t))
