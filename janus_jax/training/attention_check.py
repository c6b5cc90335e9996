"""Whether an attention kernel is right on the devices that it will run on, before the first step."""

import jax
import jax.numpy as jnp

from janus_jax.model import attention
from janus_jax.model import sharding as sh
from janus_jax.model.config import ATTENTION
from janus_jax.model.kernels import TILE


def working(kind: str, length: int, heads: int, head_size: int, dtype, say=print) -> str:
    """The kind to train rows of `length` tokens with on this machine: `kind` itself once `verify`
    has passed it; for `auto` the devices' own, or, told to `say`, the first after it that passes.

    Raises RuntimeError where none does.
    """
    own = attention.choose(kind, length, dtype)
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
        out, back = jax.vjp(lambda *qkv: attention.packed(*qkv, ids, kind), q, k, v)
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
