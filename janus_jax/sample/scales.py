"""Drawing scale by scale, coarse to fine (VAR, arXiv 2404.02905), after a prompt and under guidance.

The prompt is read once. Each step then computes all tokens of one scale, each of which sees the prompt,
the coarser scales, whose keys and values are kept, and its own scale; and draws an id for each.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import seen_from, serving
from janus_jax.sample import programs
from janus_jax.sample.cache import put
from janus_jax.sample.engine import NOT_FINITE
from janus_jax.sample.masked import groups
from janus_jax.sample.reading import Prompt


def image_ids_by_scale(
    model, prompts: list[tuple[Prompt, Prompt]], seeds, numbers, cfg_scale: float, temperature: float,
    count: int, progress=None,
) -> np.ndarray:  # fmt: skip
    """The image ids of each row, int32 [B, count], one scale after the other, as `decode.image_ids` has
    them. progress(done, total) is called after each scale of some rows, in image tokens. Raises
    ValueError where the model's logits are not finite."""
    out = np.zeros((len(prompts), count), np.int32)
    with own_jax(model):
        model = serving(model)
        leaves, tree = jax.tree.flatten(model)
        vq = model.config.generation_encoder
        how = model, prompts, seeds, numbers, cfg_scale, temperature, count
        for own, width, state, fixed in groups(*how):
            total = put(np.zeros((len(fixed[1]), *vq.grid, vq.code_dim), np.float32))
            done = 0
            for k in range(len(vq.scales)):
                *state, total, ids = _step(leaves, *state, total, *fixed, tree=tree, k=k)
                found = np.asarray(ids)[::width][: len(own)]
                if (found < 0).any():
                    raise ValueError(NOT_FINITE)
                out[own, done : done + found.shape[1]] = found
                done += found.shape[1]
                if progress:
                    progress(int(own[0]) * count + len(own) * done, out.size)
    return out


@functools.partial(jax.jit, static_argnames=("tree", "k"), donate_argnames=("cache", "total"))
def _step(leaves, cache, ends, seeds, numbers, total, mix, temperature, *, tree, k: int):
    """Scale k of R rows, of s x s tokens.

    cache: one (k, v) a layer, each [R, H, S, K], whose places from `ends` [R] on are the picture's.
    seeds, numbers: see `programs.row_keys`; mix: see `programs.mixed`; temperature: float32 [R].
    total: of the coarser scales, float32 [R, h, w, C] (`MultiscaleTokenizer`).

    Returns the cache, ends, seeds, numbers, the sum with this scale's, and its ids int32 [R, s*s], -1
    where the logits are not finite.
    """
    model = jax.tree.unflatten(tree, leaves)
    tokenizer = model.generation_encoder
    first = sum(s * s for s in tokenizer.scales[:k])
    x = model.generation_adaptor(tokenizer.read(total, k), first)
    r, n = x.shape[:2]
    start = ends + first
    last = jnp.broadcast_to(start[:, None] + n - 1, (r, n), out_sharding=sh.BATCH)
    mask = seen_from(last, cache[0][0].shape[2])
    places = start[:, None] + jnp.arange(n)
    hidden, cache = model.transformer.cached(x, places, mask, cache, start)
    logits = jax.sharding.reshard(model.image_head(hidden), sh.BATCH)  # [R, n, codes]
    codes = logits.shape[-1]
    logits = programs.mixed(logits.reshape(r, n * codes, out_sharding=sh.BATCH), mix)
    logits = logits.reshape(r, n, codes, out_sharding=sh.BATCH)
    keys = jax.vmap(jax.random.fold_in, (0, None))(programs.row_keys(seeds, numbers), k)
    ids = jax.vmap(_drawn)(keys, logits, temperature)
    total = total + tokenizer.added(k, jnp.maximum(ids, 0))
    return cache, ends, seeds, numbers, total, ids


def _drawn(key, logits, temperature):
    """An id for each of a scale's tokens, int32 [n], of logits [n, codes]."""
    largest = logits.max(-1, keepdims=True)
    scaled = (logits - largest) / jnp.where(temperature == 0, 1.0, temperature)
    drawn = jax.random.categorical(key, scaled, mode="low")
    ids = jnp.where(temperature == 0, jnp.argmax(logits, -1), drawn)
    return jnp.where(jnp.isfinite(largest[:, 0]), ids, -1).astype(jnp.int32)
