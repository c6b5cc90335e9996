"""Drawing all image tokens at once, in a few steps (MaskGIT, arXiv 2202.04200; after a prompt, and
under guidance, as in Show-o, arXiv 2408.12528).

The prompt is read once. Every step then computes all tokens of a picture, each of which sees the
prompt and the whole picture; of those not known yet it draws an id each and keeps the likeliest,
so many that cos(pi / 2 * (k + 1) / steps) of the picture's are left after step k.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import blank_cache, seen_from, serving
from janus_jax.sample import programs
from janus_jax.sample.cache import cache_length, put, row_counts
from janus_jax.sample.engine import NOT_FINITE
from janus_jax.sample.reading import Prompt, Reading

STEPS = 12  # by default; MaskGIT's pictures are best with 8 to 12
NOISE = 4.5  # on what is trusted, falling to 0: MaskGIT's, without which the ground is found first
ORDER = {"causal": "one id after the other", "scales": "all ids of a scale in one step"}
SMALL = 2  # of `row_counts`: a step computes whole pictures, which fills a device soon


def schedule(tokens: int, steps: int) -> list[int]:
    """How many of a picture's tokens are masked after each step: fewer each time, 0 at last."""
    left = tokens
    out = []
    for k in range(steps):
        share = math.cos(math.pi / 2 * (k + 1) / steps)
        most = left - 1  # at least one is found in a step
        left = max(min(most, math.floor(tokens * share)), steps - 1 - k)
        out.append(left)
    return out


def require_steps(model, steps: int | None, tokens: int) -> int:
    """The number of steps to draw a picture of so many tokens in. Raises ValueError where the model
    does not draw so, or the number is none that a picture can be drawn in."""
    config = model.config
    if config.image_head == "diffusion":
        raise ValueError(
            f"steps is {steps}: this model draws latents, each in model.denoising_steps = "
            f"{config.denoising_steps} steps; leave it out"
        )
    if config.drawing != "masked":
        raise ValueError(
            f"steps is {steps}: this model draws {ORDER[config.drawing]} (model.drawing is "
            f"{config.drawing!r}), {tokens} of a picture; leave it out, or train one with "
            "model.drawing = 'masked'"
        )
    if steps is None:
        return min(STEPS, tokens)
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool)
    if not whole or not 1 <= steps <= tokens:
        raise ValueError(
            f"steps is {steps!r}: must be a whole number from 1 to {tokens}, the image tokens of a "
            "picture, each of which is found in one step"
        )
    return int(steps)


def image_ids_in(
    model, placeholder: int, prompts: list[tuple[Prompt, Prompt]], seeds, numbers, cfg_scale: float,
    temperature: float, count: int, progress=None, *, steps: int,
) -> np.ndarray:  # fmt: skip
    """The image ids of each row, int32 [B, count], as `decode.image_ids` has them but for these:

    placeholder: the text id whose embedding a masked token reads.
    steps: how many passes a picture takes.
    progress(done, total) is called after each, in image tokens. Raises ValueError where the model's
        logits are not finite.
    """
    out = np.zeros((len(prompts), count), np.int32)
    with own_jax(model):
        model = serving(model)
        leaves, tree = jax.tree.flatten(model)
        how = model, prompts, seeds, numbers, cfg_scale, temperature, count
        for own, width, state, fixed in groups(*how):
            ids = put(np.full((len(fixed[1]), count), -1, np.int32))
            for k, left in enumerate(schedule(count, steps)):
                *state, ids = _step(
                    leaves, *state, ids, *fixed, np.int32(placeholder), np.int32(k),
                    np.int32(left), np.float32(NOISE * (1 - (k + 1) / steps)), tree=tree,
                )  # fmt: skip
                if progress:
                    progress(int(own[0]) * count + len(own) * (count - left), out.size)
            found = np.asarray(ids)[::width][: len(own)]
            if (found < 0).any():
                raise ValueError(NOT_FINITE)
            out[own] = found
    return out


def groups(model, prompts, seeds, numbers, cfg_scale: float, temperature: float, count: int):
    """Of pictures of `count` tokens that are drawn together, group by group, what steps need: (their
    numbers; rows of each; the cache, where its prompts end and the rows' keys, see `_begun`; `mix` of
    `programs.mixed` and the temperature, float32 [R]). The model is one that decodes."""
    guided = cfg_scale not in (0, 1)
    rows = list(zip(prompts, seeds, numbers, strict=True))
    leaves, tree = jax.tree.flatten(model)
    width = 1 + guided
    counts = row_counts()[:SMALL]
    size = next((n for n in counts if n >= width * len(rows)), counts[-1])
    mix = np.tile(np.eye(2, dtype=np.float32), (size // 2, 1, 1))
    if guided:
        mix[:] = cfg_scale, 1 - cfg_scale
    for first in range(0, len(rows), size // width):
        own = np.arange(first, min(first + size // width, len(rows)))
        some = rows[first : first + size // width]
        state = _begun(model, leaves, tree, some, guided, cfg_scale, count, size)
        yield own, width, state, put((mix, np.full(size, temperature, np.float32)))


def _begun(model, leaves, tree, rows, guided, cfg_scale, count, size):
    """The cache of `size` rows once their prompts are read, `count` places behind the longest, where these
    end, and the rows' keys. A guided picture has two rows, of the same key; rows that are left over
    repeat the last."""
    filled = [rows[min(i, len(rows) - 1)] for i in range(size // (1 + guided))]
    branches = (0, 1) if guided else (0,) if cfg_scale else (1,)
    own = [(pair[k], seed, number) for pair, seed, number in filled for k in branches]
    longest = max(len(prompt.ids) for prompt, _, _ in own)
    cache = blank_cache(model, size, cache_length(longest + count))
    hidden = put(np.zeros((size, model.transformer.config.width), model.transformer.dtype))
    share = size // sh.batch_shards()
    takers = {}
    for i, (prompt, _, _) in enumerate(own):
        takers.setdefault(prompt.key, (prompt, []))[1].append(i)
    for prompt, places in takers.values():
        reading = Reading(prompt)
        reading.cache = blank_cache(model, sh.batch_shards(), reading.places)
        while reading.left:
            reading.stretch(model, leaves, tree)
        wanted = np.full((sh.batch_shards(), share), -1, np.int32)
        for device, found in enumerate(wanted):
            there = [i % share for i in places if i // share == device]
            found[: len(there)] = there
        most = np.int32((wanted >= 0).sum(1).max())
        cache, hidden = programs.insert(
            cache, hidden, reading.cache, reading.last, put(wanted), most
        )
    ends = np.array([len(prompt.ids) for prompt, _, _ in own], np.int32)
    seeds = np.array([seed for _, seed, _ in own], np.uint32)
    numbers = np.array([number for _, _, number in own], np.int32)
    return cache, *put((ends, seeds, numbers))


@functools.partial(jax.jit, static_argnames="tree", donate_argnames=("cache", "ids"))
def _step(
    leaves, cache, ends, seeds, numbers, ids, mix, temperature, placeholder, k, left, heat, *, tree
):
    """One pass over all image tokens of R rows: `left` of a picture's stay masked, int32 -1 in `ids`
    [R, N]. Ids that are known stay; -1 stays too where the logits are not finite.

    cache: one (k, v) a layer, each [R, H, S, K], whose places from `ends` [R] on are the picture's.
    seeds, numbers: see `programs.row_keys`; mix: see `programs.mixed`; temperature: float32 [R].
    heat: of the noise on what is kept, besides the temperature; 0 in the last step.

    Returns the cache, ends, seeds, numbers and ids.
    """
    model = jax.tree.unflatten(tree, leaves)
    r, n = ids.shape
    known = ids >= 0
    blank = model.text_embedding(jnp.full_like(ids, placeholder))
    x = jnp.where(
        known[..., None], model.embed_image_ids(jnp.maximum(ids, 0)).astype(blank.dtype), blank
    )
    places = ends[:, None] + jnp.arange(n)
    last = jnp.broadcast_to(ends[:, None] + n - 1, (r, n), out_sharding=sh.BATCH)
    mask = seen_from(last, cache[0][0].shape[2])
    hidden, cache = model.transformer.cached(x, places, mask, cache, ends)
    logits = model.image_head(hidden).astype(jnp.float32)  # [R, N, C]
    logits = jax.sharding.reshard(logits, sh.BATCH)
    codes = logits.shape[-1]
    logits = programs.mixed(logits.reshape(r, n * codes, out_sharding=sh.BATCH), mix)
    logits = logits.reshape(r, n, codes, out_sharding=sh.BATCH)
    keys = jax.vmap(jax.random.fold_in, (0, None))(programs.row_keys(seeds, numbers), k)
    found, trust = jax.vmap(_found)(keys, logits, temperature, heat * temperature)
    bad = ~jnp.isfinite(logits.max(-1))
    trust = jnp.where(known, jnp.inf, trust)
    order = jnp.argsort(jnp.argsort(trust, axis=1), axis=1)  # 0: trusted least
    kept = (order >= left) & ~bad
    return cache, ends, seeds, numbers, jnp.where(known, ids, jnp.where(kept, found, -1))


def _found(key, logits, temperature, heat):
    """Of a picture's tokens, logits [N, C], an id each, int32 [N], and how much it is trusted,
    float32 [N]: its log-probability, and noise."""
    of_ids, of_trust = jax.random.split(key)
    below = logits - logits.max(-1, keepdims=True)
    scaled = below / jnp.where(temperature == 0, 1.0, temperature)
    drawn = jax.random.categorical(of_ids, scaled, mode="low")
    ids = jnp.where(temperature == 0, jnp.argmax(logits, -1), drawn).astype(jnp.int32)
    likely = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, None], 1)[:, 0]
    return ids, likely + heat * jax.random.gumbel(of_trust, likely.shape, mode="low")
