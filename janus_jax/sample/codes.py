"""Drawing tokens that are several codes (RQ-Transformer, arXiv 2203.01941, section 3.2): at each token the
depth head gives one code after the other, each under guidance, and the language model reads their sum.

Pictures are drawn as latents are (latents.py). Loaded where such a model draws.
"""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model import sharding as sh
from janus_jax.sample.engine import NOT_FINITE
from janus_jax.sample.latents import latents
from janus_jax.sample.programs import mixed, pick


def token(model, keys, hidden, mix, temperature):
    """The codes of a token for each row, int32 [R, d]; -1 where the logits are not finite.

    keys: one a row; rows of a pair that guides have the same, and so the same codes.
    hidden: [R, D]. mix: see `programs.mixed`, of the logits of each code. temperature: float32 [R].

    All d places are computed for each code: they are few, and read the same weights as one.
    """
    head = model.image_head

    def step(j, ids):
        x = head.features(hidden[:, None], jnp.maximum(ids, 0)[:, None])  # [R, d, W]
        own = jax.lax.dynamic_slice_in_dim(x, j, 1, 1)
        logits = mixed(head.fc2(own)[:, 0].astype(jnp.float32), mix)
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, j)
        found = pick(now, logits, temperature)
        return jax.lax.dynamic_update_slice_in_dim(ids, found[:, None], j, 1)

    none = jnp.zeros((len(hidden), head.depth), jnp.int32, out_sharding=sh.BATCH)
    return jax.lax.fori_loop(0, head.depth, step, none)


def codes(model, *rows, **how) -> np.ndarray:
    """`count` tokens per picture, int32 [B, count, d]; see `decode.image_ids`. Raises ValueError where
    the model's logits are not finite."""
    found = latents(model, *rows, **how, draw=token)
    if (found < 0).any():
        raise ValueError(NOT_FINITE)
    return found
