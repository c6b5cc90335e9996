"""Drawing with a diffusion head (MAR, arXiv 2406.11838, sections 3.2 and 4.2): latents in place of image
ids, token by token, each taken out of noise in `denoising_steps` steps.

Pictures are drawn a fixed number of rows at a time, each by itself: its latents depend on its prompt, its
seed and its number alone. Loaded where such a model draws.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.common import heap
from janus_jax.model import sharding as sh
from janus_jax.model.diffusion_head import STEPS, kept_shares
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import blank_cache, serving
from janus_jax.sample.cache import cache_length, put, row_counts
from janus_jax.sample.engine import NOT_FINITE
from janus_jax.sample.programs import CHUNK, insert, mixed, row_keys
from janus_jax.sample.reading import Reading


def respaced(count: int) -> tuple[np.ndarray, ...]:
    """`count` of the schedule's STEPS, from 0 on at equal distances, and, float32 [count] each: the
    numbers by which a latent x and its noise e become the mean of the one a step before, a * x - b * e,
    and the standard deviation around it, of the posterior (Nichol and Dhariwal, arXiv 2102.09672,
    section 4). The last draw, at step 0, is the mean itself.

    MAR spreads the steps from the first to the very last. There a latent's share is 2e-9, and a head's
    error would be multiplied by 335 in the first of 100 steps; here by 2.
    """
    steps = (np.arange(count) * STEPS // count).astype(np.int32)
    kept = kept_shares()[steps]
    before = np.append(1.0, kept[:-1])
    beta = 1 - kept / before
    spread = np.sqrt(beta * (1 - before) / (1 - kept))
    a = 1 / np.sqrt(1 - beta)
    b = beta / np.sqrt(1 - kept) * a
    return steps, *(x.astype(np.float32) for x in (a, b, spread))


def denoised(head, keys, hidden, mix, temperature, count: int):
    """A latent for each row, float32 [R, C]: ancestral sampling in `count` steps.

    keys: one a row; rows of a pair that guides have the same, and so the same noise.
    hidden: [R, D]. mix: see `programs.mixed`, here of the predicted noise. temperature: float32 [R],
        by which the noise of each step is multiplied; what it begins with is not (MAR's own).
    """
    shape = (len(hidden), head.latent_width)
    steps, *numbers = map(jnp.asarray, respaced(count))
    fold = jax.vmap(jax.random.fold_in, (0, None))
    local = lambda keys, i: jax.vmap(lambda key: jax.random.normal(key, shape[1:]))(fold(keys, i))
    noise = sh.per_device(local, (sh.BATCH, sh.REPLICATED), sh.BATCH)

    def step(i, x):
        at = count - 1 - i
        a, b, spread = (y[at] for y in numbers)
        steps_here = jnp.full((shape[0], 1), steps[at], out_sharding=sh.BATCH)
        found = mixed(head(x[:, None], steps_here, hidden[:, None])[:, 0], mix)
        return a * x - b * found + spread * temperature[:, None] * noise(keys, at)

    return jax.lax.fori_loop(0, count, step, noise(keys, jnp.int32(count)))


def latent(model, *how):
    """`denoised` in as many steps as the model says."""
    return denoised(model.image_head, *how, model.config.denoising_steps)


@functools.partial(jax.jit, static_argnames=("tree", "draw"), donate_argnames=("cache", "hidden"))
def write_tokens(leaves, cache, hidden, rows, done, steps, *, tree, draw):
    """Writes `steps` latents in every row; returns the cache, hidden, and latents [R, CHUNK, C].

    leaves, tree, cache, hidden: as in `programs.write`.
    rows: (places, keys' seeds and numbers, mix, temperature), as in `programs.Rows`; places: of the
        first latent.
    done: how many latents there are.
    draw: (model, keys, hidden, mix, temperature) -> what a token is in each row, [R, C]: `latent`, or
        `codes.token`.
    """
    model = jax.tree.unflatten(tree, leaves)
    places, seeds, numbers, mix, temperature = rows
    keys = row_keys(seeds, numbers)
    one = jax.eval_shape(draw, model, keys, hidden, mix, temperature)
    out = jnp.zeros((len(seeds), CHUNK, one.shape[1]), one.dtype, out_sharding=sh.BATCH)

    def step(i, carry):
        cache, hidden, out = carry
        at = done + i
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, at)
        x = draw(model, now, hidden, mix, temperature)
        here = places + at
        read = model.embed_image_ids(x[:, None]).astype(model.transformer.dtype)
        new, cache = model.transformer.cached(read, here[:, None], None, cache, here)
        out = jax.lax.dynamic_update_slice_in_dim(out, x[:, None], i, 1)
        return cache, new[:, 0], out

    return jax.lax.fori_loop(0, steps, step, (cache, hidden, out))


def latents(
    model, prompts: list, seeds, numbers, cfg_scale: float, temperature: float, count: int, progress=None,
    draw=latent,
) -> np.ndarray:  # fmt: skip
    """`count` latents per picture, float32 [B, count, C]; see `decode.image_ids`. Raises ValueError
    where they are not finite. draw: see `write_tokens`."""
    with own_jax(model):
        model = serving(model)
        leaves, tree = jax.tree.flatten(model)
        guided = cfg_scale not in (0, 1)
        need = len(prompts) * (1 + guided)
        rows = next((n for n in row_counts() if n >= need), row_counts()[-1])
        each = rows // (1 + guided)
        out = []
        for i in range(0, len(prompts), each):
            some = slice(i, i + each)
            group = prompts[some], list(seeds)[some], list(numbers)[some]
            told = len(prompts) * count
            tell = functools.partial(_tell, progress, i * count, len(group[0]), told)
            how = cfg_scale, temperature, count, tell, draw
            out.append(_drawn(model, leaves, tree, rows, group, *how))
        heap.trim()
    found = np.concatenate(out)
    if not np.isfinite(found).all():
        raise ValueError(NOT_FINITE)
    return found


def _tell(progress, before: int, pictures: int, total: int, done: int):
    """done: latents of each of so many pictures, beside `before` of others."""
    if progress:
        progress(before + pictures * done, total)


def _drawn(model, leaves, tree, rows: int, group, cfg_scale, temperature, count: int, tell, draw):
    """Of as many pictures as `rows` hold, one row each or, guided, two neighbours."""
    prompts, seeds, numbers = group
    each = 1 if cfg_scale in (0, 1) else 2
    own = lambda pair: pair if each == 2 else (pair[cfg_scale == 0],)
    takers = [prompt for pair in prompts for prompt in own(pair)]
    takers += [takers[0]] * (rows - len(takers))  # rows that nobody looks at
    longest = max(len(prompt.ids) for prompt in takers)
    cache = blank_cache(model, rows, cache_length(longest + count))
    llm = model.transformer
    hidden = put(np.zeros((rows, llm.config.width), llm.dtype))
    share = rows // sh.batch_shards()
    for prompt in {prompt.key: prompt for prompt in takers}.values():
        reading = Reading(prompt)
        reading.cache = blank_cache(model, sh.batch_shards(), reading.places)
        while reading.left:
            reading.stretch(model, leaves, tree)
        there = np.array([taker.key == prompt.key for taker in takers]).reshape(-1, share)
        places = np.sort(np.where(there, np.arange(share), share), 1)
        places = np.where(places == share, -1, places).astype(np.int32)
        most = np.int32(there.sum(1).max())
        cache, hidden = insert(cache, hidden, reading.cache, reading.last, put(places), most)
    pad = lambda x, kind: np.resize(np.repeat(np.asarray(x), each), rows).astype(kind)
    mix = [[cfg_scale, 1 - cfg_scale]] * 2 if each == 2 else np.eye(2)
    values = put((
        np.array([len(prompt.ids) for prompt in takers], np.int32),
        pad(seeds, np.uint32), pad(numbers, np.int32),
        np.tile(np.asarray(mix, np.float32), (rows // 2, 1, 1)), pad([temperature], np.float32),
    ))  # fmt: skip
    out = []
    for done in range(0, count, CHUNK):
        steps = min(CHUNK, count - done)
        at = np.int32(done), np.int32(steps)
        cache, hidden, some = write_tokens(leaves, cache, hidden, values, *at, tree=tree, draw=draw)
        out.append(np.asarray(some)[: each * len(prompts) : each, :steps])
        tell(done + steps)
    return np.concatenate(out, 1)
