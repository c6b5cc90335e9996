"""Prefill, then a compiled loop over tokens with a KV cache: guided image ids and text answers.

Prompts of different lengths are left-padded; padding is masked and positions start at each row's BOS. The
loop runs in chunks of a fixed number of steps, so that an accelerator is never asked whether to go on, and
the cache grows between chunks by `GROWTH` places: attention reads what is filled, and a new prompt length
compiles a prefill at most, since the loop's shapes are the caches'.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax import sharding as sh
from janus_jax.model.janus import serving

BUCKET = 32  # prompt lengths are padded up to a multiple of this
GROWTH = 128  # cache lengths are multiples of this
CHUNK = 32  # most steps between two looks of the host


def left_pad(prompts: list, pad: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 prompts [rows, L] and where each begins, int32 [rows]; missing rows repeat the last prompt."""
    prompts = [*prompts, *[prompts[-1]] * (rows - len(prompts))]
    length = round_up(max(map(len, prompts)), BUCKET)
    ids = np.full((rows, length), pad, np.int32)
    for row, prompt in zip(ids, prompts):
        row[length - len(prompt) :] = prompt
    return ids, np.array([length - len(prompt) for prompt in prompts], np.int32)


def round_up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def padded_rows(count: int) -> int:
    """`count` rounded up to what the mesh's batch axes divide."""
    mesh = jax.sharding.get_mesh()
    return round_up(count, int(np.prod([mesh.shape[axis] for axis in sh.ROWS])))


def decoded_rows(count: int) -> int:
    """`padded_rows` of the loop. At least two on CPU: for one row XLA copies the whole cache at each token, and
    multiplies bfloat16 and int8 ten times slower."""
    return padded_rows(max(count, 2 if jax.default_backend() == "cpu" else 1))


def put(x) -> jax.Array:
    """Rows of the host, split over the batch axes."""
    return jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH))


def mask_from(starts, queries, length: int):
    """bool [B, 1, T, S]: query at cache position `queries` [T] sees keys from its row's start to itself."""
    keys = jnp.arange(length)
    seen = (keys <= queries[:, None])[None] & (keys >= starts[:, None])[:, None]
    return seen[:, None]


@jax.jit
def prefill(model, x, starts):
    """Runs embedded prompts x [B, L, D]; returns the last hidden state [B, D] and a cache of L places."""
    queries = jnp.arange(x.shape[1])
    mask = mask_from(starts, queries, len(queries))
    hidden, cache = model.transformer.cached(x, jnp.maximum(queries - starts[:, None], 0), mask)
    return hidden[:, -1], cache


@functools.partial(jax.jit, static_argnames="length")
def grow(cache, length: int):
    """The cache with free places up to `length`."""
    places = lambda x: ((0, 0), (0, 0), (0, length - x.shape[2]), (0, 0))
    return jax.tree.map(lambda x: jnp.pad(x, places(x)), cache)


@jax.jit
def repeat(rows, index):
    """Rows of each array by int32 `index` [B]."""

    def take(x):
        rest = jax.typeof(x).sharding.spec[1:]
        return jax.sharding.reshard(x, jax.P(None, *rest)).at[index].get(out_sharding=jax.P(sh.ROWS, *rest))

    return jax.tree.map(take, rows)


def one_token(model, x, starts, cache, at):
    """Runs one embedded token per row, x [B, D], at cache position `at`; returns hidden [B, D] and the cache."""
    mask = mask_from(starts, at[None], cache[0][0].shape[2])
    hidden, cache = model.transformer.cached(x[:, None], (at - starts)[:, None], mask, cache, at)
    return hidden[:, 0], cache


def pick(keys, logits, temperature, top_p=None):
    """int32 [B]: argmax at temperature 0, else a draw from softmax(logits / temperature), one key a row;
    `top_p` first drops the least likely ids beyond that mass."""
    logits = jax.sharding.reshard(logits, sh.BATCH)  # whole vocabularies: sorting cannot split them
    scaled = logits / jnp.where(temperature == 0, 1.0, temperature)
    if top_p is not None:
        order = jnp.sort(jax.nn.softmax(scaled), axis=-1)[:, ::-1]
        kept = jnp.where(jnp.cumsum(order, -1) - order < top_p, order, 2.0).min(-1, keepdims=True)
        scaled = jnp.where(jax.nn.softmax(scaled) >= kept, scaled, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(temperature == 0, jnp.argmax(logits, -1), drawn).astype(jnp.int32)


def fold(keys, i):
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)


def pairs(a, b):
    """a and b [B, ...] as rows a0, b0, a1, b1, ..."""
    return jnp.stack([a, b], 1).reshape(-1, *a.shape[1:], out_sharding=sh.BATCH)


def image_logits(model, hidden, cfg_scale, guided: bool):
    """float32 [B, codebook] after hidden [rows, D]: guided, rows are pairs (conditional, unconditional) and
    logits s * conditional + (1 - s) * unconditional (paper section 3.4)."""
    logits = model.image_head(hidden[:, None])[:, 0]
    if not guided:
        return logits
    logits = logits.reshape(-1, 2, logits.shape[-1], out_sharding=sh.BATCH)
    return cfg_scale * logits[:, 0] + (1.0 - cfg_scale) * logits[:, 1]


@functools.partial(jax.jit, static_argnames=("guided", "steps"), donate_argnames="cache")
def image_chunk(
    model, hidden, cache, starts, keys, first, at, cfg_scale, temperature, *, guided: bool, steps: int
):
    """`steps` image ids from number `first` on; the first of them goes to cache position `at`. Returns
    ids [B, steps], hidden and cache."""

    def step(carry, i):
        hidden, cache = carry
        ids = pick(fold(keys, first + i), image_logits(model, hidden, cfg_scale, guided), temperature)
        x = model.embed_image_ids((pairs(ids, ids) if guided else ids)[:, None])[:, 0]
        return one_token(model, x, starts, cache, at + i), ids

    (hidden, cache), ids = jax.lax.scan(step, (hidden, cache), jnp.arange(steps))
    return ids.T, hidden, cache


def image_ids(
    model, prompts, unconditional, starts, keys, cfg_scale, temperature, count: int, progress=None
) -> np.ndarray:
    """`count` image ids per row under classifier-free guidance, int32 [B, count].

    prompts, unconditional int32 [B, L] (begin_of_image last), starts int32 [B], keys [B]. At scale 1 or 0
    only the branch that counts is run. Rows that are equal (the unconditional ones of equal length, pictures
    of one prompt) are prefilled once. progress(done) is called as ids come.
    """
    model, guided, b = serving(model), cfg_scale not in (0, 1), len(prompts)
    if guided:
        rows = np.stack([prompts, unconditional], 1).reshape(2 * b, -1)
        starts = np.repeat(starts, 2)
    else:
        index = np.minimum(np.arange(decoded_rows(b)), b - 1)
        rows, starts, keys = (unconditional if cfg_scale == 0 else prompts)[index], starts[index], keys[index]
    different, index = np.unique(np.column_stack([starts, rows]), axis=0, return_inverse=True)
    # A power of two: few shapes to compile.
    wanted = padded_rows(1 << (len(different) - 1).bit_length())
    different = np.concatenate([different, np.repeat(different[-1:], wanted - len(different), 0)])
    x = _text(model, put(different[:, 1:].astype(np.int32)))
    hidden, cache = repeat(
        prefill(model, x, put(different[:, 0].astype(np.int32))), put(index.astype(np.int32))
    )
    starts, keys = put(starts.astype(np.int32)), put(keys)
    steps = max(n for n in range(1, min(count, CHUNK) + 1) if count % n == 0)
    out, at = [], prompts.shape[1]
    for first in range(0, count, steps):
        cache = grow(cache, round_up(at + first + steps, GROWTH))
        ids, hidden, cache = image_chunk(
            model, hidden, cache, starts, keys, jnp.int32(first), jnp.int32(at + first),
            jnp.float32(cfg_scale), jnp.float32(temperature), guided=guided, steps=steps,
        )  # fmt: skip
        if progress and out:  # the chunk before: the device already works on this one
            progress(out[-1].block_until_ready().shape[1] * len(out))
        out.append(ids)
    out = np.concatenate(out, 1)[:b]
    if progress:
        progress(count)
    return out


@functools.partial(jax.jit, static_argnames="steps", donate_argnames="cache")
def text_chunk(model, hidden, cache, starts, keys, done, first, at, eos, temperature, top_p, *, steps: int):
    """`steps` text ids, all eos once a row is done. Returns ids [B, steps], hidden, cache and done [B]."""

    def step(carry, i):
        hidden, cache, done = carry
        ids = pick(fold(keys, first + i), model.text_head(hidden[:, None])[:, 0], temperature, top_p)
        ids = jnp.where(done, eos, ids)
        x = model.text_embedding(ids[:, None])[:, 0]
        return (*one_token(model, x, starts, cache, at + i), done | (ids == eos)), ids

    (hidden, cache, done), ids = jax.lax.scan(step, (hidden, cache, done), jnp.arange(steps))
    return ids.T, hidden, cache, done


def text_ids(
    model, prompts, pictures, slots, starts, keys, eos, temperature, top_p, most: int, stream=None
) -> np.ndarray:
    """Up to `most` text ids per row, int32 [B, most]; after a row's end of sentence all are eos.

    prompts int32 [B, L]; pictures float32 [B, M, H, W, 3]; slots int32 [B, L] as batch.picture_slots.
    stream(ids [B, n]) is called as ids come, and may return True to end; n is 1 on CPU, where a token takes
    long.
    """
    model = serving(model)
    rows, length = prompts.shape
    x = _read(model, put(prompts), put(pictures), put(slots))
    index = np.minimum(np.arange(decoded_rows(rows)), rows - 1)
    hidden, cache = repeat(prefill(model, x, put(starts)), put(index))
    starts, keys, done = put(starts[index]), put(keys[index]), put(np.zeros(len(index), bool))
    out = np.full((rows, most), eos, np.int32)
    steps = min(most, 16 if stream is None else 1 if jax.default_backend() == "cpu" else 8)
    for first in range(0, most, steps):
        cache = grow(cache, round_up(length + first + steps, GROWTH))
        ids, hidden, cache, done = text_chunk(
            model, hidden, cache, starts, keys, done, jnp.int32(first), jnp.int32(length + first),
            jnp.int32(eos), jnp.float32(temperature), top_p, steps=steps,
        )  # fmt: skip
        ids = np.asarray(ids)[:rows, : most - first]
        out[:, first : first + steps] = ids
        if (stream is not None and stream(ids)) or np.asarray(done).all():
            break
    return out


@jax.jit
def _text(model, ids):
    return model.text_embedding(ids)


@jax.jit
def _read(model, prompts, pictures, slots):
    none = jnp.zeros((prompts.shape[0], 0), jnp.int32, out_sharding=sh.BATCH)
    return model.embed(prompts, pictures, none, slots, slots)
