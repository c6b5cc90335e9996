"""The compiled programs that draw and answer.

`advance` runs whatever is asked: a stretch of a prompt is read into the KV cache, or tokens are
written after it, in a loop whose number of steps is a value. Only the number of rows and the length
of the cache decide what is compiled.
"""

import functools

import jax
import jax.numpy as jnp

from janus_jax.model import sharding as sh

READ = 64, 320  # tokens of a prompt that are read at once: of short ones, of longer ones
CHUNK = 32  # most steps between two looks of the host
IMAGE, TEXT, TOP_P = range(3)  # what is written: image ids, text, text of the likeliest mass


def mask_from(starts, queries, length: int):
    """bool [B, 1, T, S]: the query at place `queries` [T] sees its row's keys up to itself."""
    keys = jnp.arange(length)
    seen = (keys <= queries[:, None])[None] & (keys >= starts[:, None])[:, None]
    return seen[:, None]


def pick(keys, logits, temperature, top_p=None):
    """int32 [B]: argmax at temperature 0, else a draw from softmax(logits / temperature), one key a
    row; `top_p`, at least the least float32, first drops the least likely ids beyond that mass.
    -1 where the largest logit is not finite."""
    logits = jax.sharding.reshard(logits, sh.BATCH)  # whole vocabularies: sorting cannot split them
    # Below the largest: divided by a tiny temperature all but that one may become -inf, none inf.
    largest = logits.max(-1, keepdims=True)
    below = logits - largest
    scaled = below / jnp.where(temperature == 0, 1.0, temperature)
    if top_p is not None:
        order = jnp.sort(jax.nn.softmax(scaled), axis=-1)[:, ::-1]
        kept = jnp.where(jnp.cumsum(order, -1) - order < top_p, order, 2.0).min(-1, keepdims=True)
        scaled = jnp.where(jax.nn.softmax(scaled) >= kept, scaled, -jnp.inf)
    # The mode is named, since a setting of JAX would choose another, with other ids.
    drawn = jax.vmap(functools.partial(jax.random.categorical, mode="low"))(keys, scaled)
    ids = jnp.where(temperature == 0, jnp.argmax(logits, -1), drawn)
    return jnp.where(jnp.isfinite(largest[:, 0]), ids, -1).astype(jnp.int32)


def mixed(logits, mix):
    """Logits [R, C] of which the two of each pair are summed as `mix` [R / 2, 2, 2] says: row i of a
    pair becomes mix[i, 0] * first + mix[i, 1] * second (guidance, paper section 3.4)."""
    pairs = logits.reshape(-1, 2, logits.shape[-1], out_sharding=sh.BATCH)
    both = mix[:, :, :1] * pairs[:, :1] + mix[:, :, 1:] * pairs[:, 1:]
    return both.reshape(logits.shape, out_sharding=sh.BATCH)


def row_keys(seeds, numbers):
    """A key for each row from its seed, uint32 [R], and the picture's number, int32 [R] (-1: none)."""
    zeros = jnp.zeros_like(seeds)
    keys = jax.random.wrap_key_data(jnp.stack([zeros, seeds], 1), impl="threefry2x32")
    folded = jax.vmap(jax.random.fold_in)(keys, jnp.maximum(numbers, 0))
    return jnp.where(numbers < 0, keys, folded)


def read(model, state, ids, shown, is_shown, starts, rows, takers, at):
    """`state` once each device has read n tokens, a stretch, for some of its rows.

    state: cache, last hidden states [R, D], and who is done, bool [R].
    ids, shown, is_shown: as in `Prompt`, one stretch for each of the devices, [devices, n, ...].
    starts, rows: int32 [devices], where the prompt begins, and in which of the device's rows what was
        read of it lies.
    takers: bool [R], the rows that get what is read.
    at: the stretch's first place in the cache.
    """
    cache, hidden, done = state
    count = ids.shape[1]
    x = model.text_embedding(ids)
    x = jnp.where(is_shown[..., None], shown.astype(x.dtype), x)
    own = lambda x: sh.per_device(
        lambda x, row: jax.lax.dynamic_index_in_dim(x, row[0]), (spec(x), sh.BATCH), spec(x)
    )(x, rows)

    taken = lambda old, new, takers: jnp.where(takers.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    def places(old, new, takers, at):
        new, before = (jax.lax.dynamic_slice_in_dim(x, at, count, 2) for x in (new, old))
        return jax.lax.dynamic_update_slice_in_dim(old, taken(before, new, takers), at, 2)

    def give(local, old, new, *more):
        specs = spec(old), spec(old), sh.BATCH, *[sh.REPLICATED] * len(more)
        return sh.per_device(local, specs, spec(old))(old, new, takers, *more)

    queries = at + jnp.arange(count)
    mask = mask_from(starts, queries, cache[0][0].shape[2])
    positions = jnp.maximum(queries - starts[:, None], 0)
    out, new = model.transformer.cached(x, positions, mask, jax.tree.map(own, cache), at)
    cache = jax.tree.map(lambda old, new: give(places, old, new, at), cache, new)
    return cache, give(taken, hidden, out[:, -1]), done


def spec(x) -> jax.P:
    return jax.typeof(x).sharding.spec


def one_token(model, x, starts, cache, at):
    """Runs a token per row, x [B, 1, D], at place `at`; returns hidden [B, D] and the cache."""
    mask = mask_from(starts, at[None], cache[0][0].shape[2])
    hidden, cache = model.transformer.cached(x, (at - starts)[:, None], mask, cache, at)
    return hidden[:, 0], cache


@functools.partial(jax.jit, static_argnames="tree", donate_argnames="state")
def advance(leaves, state, reading, stretch, writing, steps, first, at, *, tree):
    """Reads one `stretch` (`read`'s arguments) if `reading` is 1, then writes `steps` tokens after
    it: the `first`-th and the next, from cache position `at` on. Returns the state and ids [R,
    CHUNK].

    leaves, tree: the model, taken apart once: that takes longer than a small model's token.
    writing: kind (IMAGE, TEXT or TOP_P), starts int32 [R], `row_keys`' seeds and numbers, mix (see
        `mixed`), eos, temperature and top_p.
    """
    model = jax.tree.unflatten(tree, leaves)
    state = jax.lax.fori_loop(0, reading, lambda _, state: read(model, state, *stretch), state)
    kind, starts, seeds, numbers, mix, eos, temperature, top_p = writing
    keys = row_keys(seeds, numbers)
    embedded = lambda x: jax.sharding.reshard(x.astype(model.transformer.dtype), sh.ACT_BTD)

    def image(keys, hidden, done):
        logits = mixed(model.image_head(hidden[:, None])[:, 0], mix)
        ids = pick(keys, logits, temperature)
        return ids, embedded(model.embed_image_ids(ids[:, None])), done

    def text(mass, keys, hidden, done):
        logits = model.text_head(hidden[:, None])[:, 0]
        ids = jnp.where(done, eos, pick(keys, logits, temperature, mass))
        return ids, embedded(model.text_embedding(ids[:, None])), done | (ids == eos)

    ways = image, functools.partial(text, None), functools.partial(text, top_p)

    def step(i, carry):
        (cache, hidden, done), out = carry
        now = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, first + i)
        ids, x, done = jax.lax.switch(kind, ways, now, hidden, done)
        hidden, cache = one_token(model, x, starts, cache, at + i)
        return (cache, hidden, done), jax.lax.dynamic_update_slice_in_dim(out, ids[:, None], i, 1)

    out = jnp.zeros((len(starts), CHUNK), jnp.int32, out_sharding=sh.BATCH)
    return jax.lax.fori_loop(0, steps, step, (state, out))


@functools.partial(jax.jit, static_argnames="length")
def grow(pair, length: int):
    """A layer's keys and values [R, H, S, K] with free places up to `length`."""
    return tuple(jnp.pad(x, ((0, 0), (0, 0), (0, length - x.shape[2]), (0, 0))) for x in pair)


@functools.partial(jax.jit, static_argnames=("tree", "grid"))
def paint(leaves, ids, *, tree, grid):
    """Pixels [B, H, W, 3] of image ids [B, N]; leaves, tree: the VQ tokenizer."""
    return jax.tree.unflatten(tree, leaves).decode(ids, grid)


@functools.partial(jax.jit, static_argnames="tree")
def see(leaves, pixels, *, tree):
    """The features [B, N, D] of pictures [B, H, W, 3]; leaves, tree: the model."""
    return jax.tree.unflatten(tree, leaves).embed_images(pixels)
