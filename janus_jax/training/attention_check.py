"""Whether an attention kernel is right on the devices that it will run on, before the first step."""

import functools

import jax
import jax.numpy as jnp

from janus_jax.model import attention
from janus_jax.model import sharding as sh
from janus_jax.model.config import ATTENTION, JanusConfig
from janus_jax.model.kernels import TILE


def working(model: JanusConfig, length: int, say=print, deterministic: bool = False) -> str:
    """The kind to train a model with on this machine, in rows of `length` tokens: its own once
    `verify` has passed it; for `auto` the devices' own, or, told to `say`, the first after it that
    passes. deterministic: not cuDNN's, whose gradients are added up in any order.

    Raises RuntimeError where none does.
    """
    kind = model.attention
    dtype = jnp.dtype(model.dtype)
    causal = model.drawing == "causal"
    own = attention.choose(kind, length, dtype, causal)
    if deterministic and own == "cudnn":
        own = "triton"
    after = {"cudnn": ["triton", "blockwise"], "triton": ["blockwise"], "splash": ["blockwise"]}
    candidates = [own, *(after.get(own, ()) if kind == "auto" else ())]
    for candidate, follower in zip(candidates, [*candidates[1:], None]):
        try:
            verify(candidate, model.transformer, length, dtype, causal)
            verify(candidate, model.understanding_encoder, None, dtype)
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


def verify(kind: str, box, length: int | None, dtype, causal: bool = True):
    """Compares a kind, on this machine's devices, with `plain` in float32: results and gradients.

    box: the config of the transformer, or of the understanding tower.
    length: tokens of a row of several examples; None: pictures of the tower instead.
    causal: no token of the row sees those behind it; else those of a stretch see all of it.

    Raises ValueError when they differ by more than the dtype's rounding.
    """
    if kind == "plain" or (length is None and kind not in attention.OF_PICTURES):
        return
    pictures = length is None
    length = box.patches + ("class_token" in box.variant) if pictures else min(length, 4 * TILE)
    shape = (4, sh.batch_shards(), length, box.heads, box.width // box.heads)
    draws = jax.random.normal(jax.random.key(0), shape, out_sharding=sh.STACK_BTHK)
    borders = jnp.array([0, 7, length // 3, length // 2 + 5, length - 40])
    ids = jnp.searchsorted(borders, jnp.arange(length), side="right").astype(jnp.int32)
    ids = jax.sharding.reshard(jnp.broadcast_to(ids, shape[1:3]), sh.BATCH)
    ahead = None
    if not causal:
        at = jnp.arange(length)
        end = length // 3 - 1  # of the second example, from its third token on
        ahead = jnp.broadcast_to(jnp.where((at >= 9) & (at <= end), end - at, 0), shape[1:3])
        ahead = jax.sharding.reshard(ahead, sh.BATCH)

    def run(kind, dtype, draws, ids):  # not closed over: a constant must be whole on each process
        q, k, v, g = draws.astype(dtype)
        attend = (
            attention.full
            if pictures
            else functools.partial(attention.packed, segment_ids=ids, ahead=ahead)
        )
        out, back = jax.vjp(functools.partial(attend, kind=kind), q, k, v)
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
                f"another {name} {'of pictures ' if pictures else ''}than plain attention's: off by "
                f"{error:.2g} of the largest value, {allowed:.2g} allowed"
            )
