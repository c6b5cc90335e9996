"""Numbers that tell when a tokenizer has stopped to learn: codes that nobody uses any more, a
discriminator that nothing can fool."""

import jax
import jax.numpy as jnp
from flax import nnx

WINDOW = 65536  # of the last ids, as LlamaGen counts usage
COLLAPSED = 0.05  # the share of the codebook in use below which it has collapsed
ZERO = 1e-3  # of the discriminator's loss, which begins at about 1: below, it is 0
# Ids for each code after which a share says something, though the window is not full yet: as many
# as the window has for LlamaGen's 16,384 codes.
ENOUGH = 4
# Metric -> what is said when it has counted spikes.PATIENCE steps in a row, or a quarter of a short
# stage's.
ALARMS = {
    "steps_collapsed": (
        f"the codebook has collapsed: less than {COLLAPSED:.0%} of the codes were used among the last "
        f"{WINDOW:,} ids. Begin again with options.entropy such as 0.01 (or higher), a lower "
        "optim.learning_rate, a longer optim.warmup_steps, or a smaller model.generation_encoder."
        "codebook_size"
    ),
    "steps_at_zero": (
        f"the discriminator's loss is 0 (below {ZERO:g}): it tells every picture from its "
        "reconstruction, and learns nothing more. Give it less to work with "
        "(options.discriminator_width, discriminator_layers), begin it later "
        "(options.discriminator_start), or take options.discriminator_loss vanilla, which has no "
        "flat end"
    ),
}


class Use(nnx.Module):
    """Of each code the step of its last use, int32 [N], 0 for none; how many steps in a row the
    codebook was collapsed, and the discriminator at zero, int32."""

    def __init__(self, codebook_size: int):
        self.last = nnx.Variable(jnp.zeros(codebook_size, jnp.int32))
        self.collapsed = nnx.Variable(jnp.int32(0))
        self.at_zero = nnx.Variable(jnp.int32(0))


def counted(use: dict, ids: jax.Array, step, idle) -> tuple[dict, dict]:
    """(a `Use` after one more step, metrics).

    Args:
        use: a `Use`, as a dict of arrays.
        ids: int32 of the step: [B, h, w], [B, h, w, d] where a token has several, [B, N, 1] of scales.
        step: int32, from 1.
        idle: bool, whether the discriminator's loss is zero though it is in use.
    """
    codes = use["last"].shape[0]
    used = (ids[..., None] == jnp.arange(codes)).any(tuple(range(ids.ndim)))
    last = jnp.where(used, step, use["last"])
    window = -(-WINDOW // ids.size)  # in steps
    share = jnp.mean((last > jnp.maximum(step - window, 0)).astype(jnp.float32))
    enough = min(window, -(-ENOUGH * codes // ids.size))
    few = (share < COLLAPSED) & (step >= enough)
    on = lambda count, bad: jnp.where(bad, count + 1, 0)
    use = {
        "last": last,
        "collapsed": on(use["collapsed"], few),
        "at_zero": on(use["at_zero"], idle),
    }
    metrics = {
        "codes_used": used.sum().astype(jnp.float32),
        "codebook_usage": share,
        "steps_collapsed": use["collapsed"].astype(jnp.float32),
        "steps_at_zero": use["at_zero"].astype(jnp.float32),
    }
    return use, metrics
