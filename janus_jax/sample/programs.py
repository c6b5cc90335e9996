"""The compiled programs that draw and answer.

`read` takes a prompt into a KV cache of its own, stretch by stretch; `insert` puts it into rows of
the cache of all; `write` writes tokens after what the rows hold, in a loop whose number of steps is
a value. Every row starts at place 0 of the cache and has a place, a seed and settings of its own, so
that what it computes does not depend on its neighbours. The number of rows and the length of a cache
alone decide what is compiled.
"""

import functools
import operator
import typing

import jax
import jax.numpy as jnp

from janus_jax.model import sharding as sh

READ = 64, 320  # tokens of a prompt that are read at once: of short ones, of longer ones
CHUNK = 32  # most steps between two looks of the host
IMAGE, TEXT, TOP_P = range(3)  # what rows write: image ids, text, text of the likeliest mass
BOTH = 2  # more than TEXT and TOP_P: where other rows draw


class Rows(typing.NamedTuple):
    """What is written in each of R rows.

    draws: bool, image ids or text. runs: bool, whether the row moves on.
    places: int32, where in the cache its next token lies; counts: how many it has written.
    seeds, numbers: see `row_keys`; mix: float32 [R / n, n, n], see `mixed`.
    temperature, top_p: float32, see `pick`.
    """

    draws: jax.Array
    runs: jax.Array
    places: jax.Array
    counts: jax.Array
    seeds: jax.Array
    numbers: jax.Array
    mix: jax.Array
    temperature: jax.Array
    top_p: jax.Array


def pick(keys, logits, temperature, top_p=None):
    """int32 [B]: argmax at temperature 0, else a draw from softmax(logits / temperature), one key, one
    temperature and one top_p a row, or one for all; a `top_p` below 1, at least the least float32,
    first drops the least likely ids beyond that mass. -1 where the largest logit is not finite."""
    temperature, top_p = (x if x is None else jnp.reshape(x, (-1, 1)) for x in (temperature, top_p))
    logits = jax.sharding.reshard(logits, sh.BATCH)  # whole vocabularies: sorting cannot split them
    # Below the largest: divided by a tiny temperature all but that one may become -inf, none inf.
    largest = logits.max(-1, keepdims=True)
    below = logits - largest
    scaled = below / jnp.where(temperature == 0, 1.0, temperature)
    if top_p is not None:
        order = jnp.sort(jax.nn.softmax(scaled), axis=-1)[:, ::-1]
        kept = jnp.where(jnp.cumsum(order, -1) - order < top_p, order, 2.0).min(-1, keepdims=True)
        scaled = jnp.where((jax.nn.softmax(scaled) >= kept) | (top_p == 1), scaled, -jnp.inf)
    # The mode is named, since a setting of JAX would choose another, with other ids.
    drawn = jax.vmap(functools.partial(jax.random.categorical, mode="low"))(keys, scaled)
    ids = jnp.where(temperature[:, 0] == 0, jnp.argmax(logits, -1), drawn)
    return jnp.where(jnp.isfinite(largest[:, 0]), ids, -1).astype(jnp.int32)


def mixed(logits, mix):
    """Logits [R, C] of which the n of each group are summed as `mix` [R / n, n, n] says: row i of a
    pair becomes mix[i, 0] * first + mix[i, 1] * second (guidance, paper section 3.4)."""
    groups = logits.reshape(-1, mix.shape[-1], logits.shape[-1], out_sharding=sh.BATCH)
    share = lambda i: jnp.where(
        mix[:, :, i : i + 1] == 0, 0.0, mix[:, :, i : i + 1] * groups[:, i : i + 1]
    )
    total = functools.reduce(operator.add, map(share, range(mix.shape[-1])))
    return total.reshape(logits.shape, out_sharding=sh.BATCH)


def row_keys(seeds, numbers):
    """A key for each row from its seed, uint32 [R], and the picture's number, int32 [R] (-1: none)."""
    zeros = jnp.zeros_like(seeds)
    keys = jax.random.wrap_key_data(jnp.stack([zeros, seeds], 1), impl="threefry2x32")
    folded = jax.vmap(jax.random.fold_in)(keys, jnp.maximum(numbers, 0))
    return jnp.where(numbers < 0, keys, folded)


@functools.partial(jax.jit, static_argnames="tree", donate_argnames="cache")
def read(leaves, cache, ids, shown, is_shown, at, last, *, tree):
    """The cache of a prompt once its next n tokens are read, which lie from place `at` on, and the
    hidden state of the `last`-th; what follows that is nowhere. Each device reads the same.

    leaves, tree: the model, taken apart once: that takes longer than a small model's token.
    cache: one (k, v) a layer, each [devices, H, P, K].
    ids, shown, is_shown: as in `Prompt`, [devices, n, ...].

    Returns the cache and hidden [devices, D].
    """
    model = jax.tree.unflatten(tree, leaves)
    x = model.text_embedding(ids)
    x = jnp.where(is_shown[..., None], shown.astype(x.dtype), x)
    i = jnp.arange(ids.shape[1])  # what fills it up is nowhere
    places = jnp.broadcast_to(jnp.where(i <= last, at + i, -1), ids.shape, out_sharding=sh.BATCH)
    out, cache = model.transformer.cached(x, places, None, cache, at, last)
    return cache, out[:, 0]


@functools.partial(jax.jit, donate_argnames=("cache", "hidden"))
def insert(cache, hidden, prompt, last, rows, count):
    """The cache of all rows and their hidden states [R, D] once a prompt lies in some of them, with
    zeros behind its own cache: nothing of who had the row before is left.

    prompt, last: what `read` gave.
    rows: int32 [devices, R / devices], `count` rows of each device's that take it; -1 is none.
    """

    def give(old, new, rows, count):
        def one(i, old):
            row = jnp.maximum(rows[0, i], 0)
            before = jax.lax.dynamic_slice_in_dim(old, row, 1)
            now = jnp.where(rows[0, i] >= 0, whole, before)
            return jax.lax.dynamic_update_slice_in_dim(old, now, row, 0)

        whole = jnp.pad(new, [(0, n - m) for n, m in zip((1, *old.shape[1:]), new.shape)])
        return jax.lax.fori_loop(0, count, one, old)

    def given(old, new):
        spec = jax.typeof(old).sharding.spec
        each = sh.per_device(give, (spec, spec, sh.BATCH, sh.REPLICATED), spec)
        return each(old, new, rows, count)

    return jax.tree.map(given, cache, prompt), given(hidden, last)


@functools.partial(jax.jit, static_argnames=("tree", "told"), donate_argnums=(1, 2, 3))
def write(leaves, cache, drawn, hidden, rows: Rows, kind, steps, *, tree, told=None):
    """Writes `steps` tokens in every row that runs; returns the caches, hidden, the rows' places and
    counts after it, and ids [R, CHUNK].

    leaves, tree: as `read` takes them.
    cache: one (k, v) a layer, each [R, H, S, K]; drawn: that of `Janus.embed_drawn`; hidden: of each
        row's last token, [R, D].
    kind: IMAGE where all rows draw, TEXT or TOP_P (if any asks for it) where none does, BOTH more
        where some do. What nobody needs is not computed.
    told: None, or what gives a pair in the place of ids (`reported.with_log_probability`).
    """
    model = jax.tree.unflatten(tree, leaves)
    keys = row_keys(rows.seeds, rows.numbers)
    embedded = lambda x: jax.sharding.reshard(x.astype(model.transformer.dtype), sh.ACT_BTD)
    given = lambda ids, logits: told(ids, logits, rows.temperature) if told else ids

    def image(keys, hidden, drawn, counts):
        logits = mixed(model.image_head(hidden[:, None])[:, 0], rows.mix)
        ids = pick(keys, logits, rows.temperature)
        x, drawn = model.embed_drawn(ids[:, None], counts, drawn)
        return given(ids, logits), embedded(x), drawn

    def text(mass, keys, hidden, drawn, _):
        logits = model.text_head(hidden[:, None])[:, 0]
        ids = pick(keys, logits, rows.temperature, mass)
        return given(ids, logits), embedded(model.text_embedding(ids[:, None])), drawn

    def both(mass, keys, hidden, drawn, counts):
        ids, x, drawn = image(keys, hidden, drawn, counts)
        words, y, _ = text(mass, keys, hidden, drawn, counts)
        own = rows.draws[:, None, None]
        ids = jax.tree.map(functools.partial(jnp.where, rows.draws), ids, words)
        return ids, jnp.where(own, x, y), drawn

    part = functools.partial
    ways = image, *(part(f, mass) for f in (text, both) for mass in (None, rows.top_p))
    if model.config.image_head != "softmax" or model.config.drawing == "scales":
        # Those draw in files of their own.
        ways = ways[1], *ways[1:3]

    def step(i, carry):
        (cache, drawn, hidden), out = carry
        counts = rows.counts + i
        now = jax.vmap(jax.random.fold_in)(keys, counts)
        ids, x, drawn = jax.lax.switch(kind, ways, now, hidden, drawn, counts)
        places = rows.places + jnp.where(rows.runs, i, 0)
        new, cache = model.transformer.cached(x, places[:, None], None, cache, places)
        hidden = jnp.where(rows.runs[:, None], new[:, 0], hidden)
        put = lambda out, now: jax.lax.dynamic_update_slice_in_dim(out, now[:, None], i, 1)
        return (cache, drawn, hidden), jax.tree.map(put, out, ids)

    zeros = lambda kind: jnp.zeros((len(rows.counts), CHUNK), kind, out_sharding=sh.BATCH)
    out = (zeros(jnp.int32), zeros(jnp.float32)) if told else zeros(jnp.int32)
    kept, out = jax.lax.fori_loop(0, steps, step, ((cache, drawn, hidden), out))
    on = jnp.where(rows.runs, steps, 0)
    return *kept, (rows.places + on, rows.counts + on), out


@functools.partial(jax.jit, donate_argnames="drawn")
def forget(drawn, rows):
    """The cache of pictures, each [R, H, N, K], with zeros in these rows, bool [R]."""
    return jax.tree.map(lambda x: jnp.where(rows[:, None, None, None], 0, x), drawn)


@functools.partial(jax.jit, static_argnames="length")
def resize(pair, length: int):
    """A layer's keys and values [R, H, S, K] with free places up to `length`, or without the last."""
    pads = ((0, 0), (0, 0), (0, max(length - pair[0].shape[2], 0)), (0, 0))
    return tuple(jnp.pad(x, pads)[:, :, :length] for x in pair)


@functools.partial(jax.jit, static_argnames=("tree", "grid"))
def paint(leaves, ids, *, tree, grid):
    """Pixels [B, H, W, 3] of image ids [B, N]; leaves, tree: the VQ tokenizer."""
    return jax.tree.unflatten(tree, leaves).decode(ids, grid)


@functools.partial(jax.jit, static_argnames="tree")
def see(leaves, pixels, *, tree):
    """The features [B, N, D] of pictures [B, H, W, 3]; leaves, tree: the model."""
    return jax.tree.unflatten(tree, leaves).embed_images(pixels)


@functools.partial(jax.jit, static_argnames="tree")
def see_ids(leaves, pixels, *, tree):
    """The features [B, N, D] of pictures [B, H, W, 3] as they are read by their ids; leaves, tree: the model."""
    model = jax.tree.unflatten(tree, leaves)
    return model.embed_image_ids(model.generation_encoder.encode(pixels))
