"""Prefill, then one token at a time with a KV cache; guided image ids and text answers, one compiled loop each.

Prompts of different lengths are left-padded; padding is masked and positions start at each row's BOS.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax import sharding as sh

BUCKET = 16  # prompt lengths are padded up to a multiple of this, so that few shapes are compiled


def left_pad(prompts: list, pad: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 prompts [rows, L] and where each begins, int32 [rows]; missing rows repeat the last prompt."""
    prompts = [*prompts, *[prompts[-1]] * (rows - len(prompts))]
    length = -(-max(map(len, prompts)) // BUCKET) * BUCKET
    ids = np.full((rows, length), pad, np.int32)
    for row, prompt in zip(ids, prompts):
        row[length - len(prompt) :] = prompt
    return ids, np.array([length - len(prompt) for prompt in prompts], np.int32)


def padded_rows(count: int) -> int:
    """`count` rounded up to what the mesh's batch axes divide."""
    mesh = jax.sharding.get_mesh()
    split = int(np.prod([mesh.shape[axis] for axis in sh.ROWS]))
    return -(-count // split) * split


def mask_from(starts, queries, length: int):
    """bool [B, 1, T, S]: query at cache position `queries` [T] sees keys from its row's start to itself."""
    keys = jnp.arange(length)
    seen = (keys <= queries[:, None])[None] & (keys >= starts[:, None])[:, None]
    return seen[:, None]


def prefill(model, x, starts, extra: int):
    """Runs embedded prompts x [B, L, D]; returns the last hidden state [B, D] and a cache with `extra` free
    places."""
    b, length, _ = x.shape
    queries = jnp.arange(length)
    cache = model.transformer.empty_cache(b, length + extra)
    mask = mask_from(starts, queries, length + extra)
    positions = jnp.maximum(queries - starts[:, None], 0)
    hidden, cache = model.transformer(x, positions, mask, cache, 0)
    return hidden[:, -1], cache


def one_token(model, x, starts, cache, at):
    """Runs one embedded token per row, x [B, D], at cache position `at`; returns hidden [B, D] and the cache."""
    mask = mask_from(starts, at[None], cache[0].shape[2])
    hidden, cache = model.transformer(x[:, None], (at - starts)[:, None], mask, cache, at)
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


def image_ids(
    model, prompts, unconditional, starts, keys, cfg_scale, temperature, count: int, progress=None
) -> np.ndarray:
    """`_image_ids` on the host; progress(done) is told when the ids are there."""
    ids = np.asarray(_image_ids(model, prompts, unconditional, starts, keys, cfg_scale, temperature, count))
    if progress is not None:
        progress(count)
    return ids


def text_ids(
    model, prompts, pictures, slots, starts, keys, eos, temperature, top_p, most: int, stream=None
) -> np.ndarray:
    """`_text_ids` on the host; stream(ids [B, n]) is told of them and may return True, "enough"."""
    options = (eos, temperature, top_p, most)
    ids = np.asarray(_text_ids(model, prompts, pictures, slots, starts, keys, *options))
    for i in range(most if stream is not None else 0):
        if stream(ids[:, i : i + 1]):
            break
    return ids


@functools.partial(jax.jit, static_argnames="count")
def _image_ids(model, prompts, unconditional, starts, keys, cfg_scale, temperature, count: int):
    """`count` image ids per row under classifier-free guidance, int32 [B, count].

    prompts, unconditional int32 [B, L] (begin_of_image last); keys [B]. Rows run in pairs, as in the original
    code; logits s * conditional + (1 - s) * unconditional in float32: exactly one branch at s = 1 or 0.
    """
    b = prompts.shape[0]
    pair = lambda a, b: jnp.stack([a, b], 1).reshape(-1, *a.shape[1:], out_sharding=sh.BATCH)
    rows, twice = pair(prompts, unconditional), pair(starts, starts)
    hidden, cache = prefill(model, model.text_embedding(rows), twice, count)

    def step(carry, i):
        hidden, cache = carry
        logits = model.image_head(hidden[:, None])[:, 0].reshape(b, 2, -1, out_sharding=sh.BATCH)
        logits = cfg_scale * logits[:, 0] + (1.0 - cfg_scale) * logits[:, 1]
        ids = pick(fold(keys, i), logits, temperature)
        x = model.embed_image_ids(pair(ids, ids)[:, None])[:, 0]
        return one_token(model, x, twice, cache, prompts.shape[1] + i), ids

    _, ids = jax.lax.scan(step, (hidden, cache), jnp.arange(count))
    return ids.T


@functools.partial(jax.jit, static_argnames=("most",))
def _text_ids(model, prompts, pictures, slots, starts, keys, eos, temperature, top_p, most: int):
    """Up to `most` text ids per row, int32 [B, most]; after a row's end of sentence all are eos.

    prompts int32 [B, L]; pictures float32 [B, M, H, W, 3]; slots int32 [B, L] as batch.picture_slots.
    """
    none = jnp.zeros((prompts.shape[0], 0), jnp.int32, out_sharding=sh.BATCH)
    x = model.embed(prompts, pictures, none, slots, slots)
    hidden, cache = prefill(model, x, starts, most)

    def going(carry):
        i, *_, done = carry
        return (i < most) & ~done.all()

    def step(carry):
        i, hidden, cache, out, done = carry
        ids = pick(fold(keys, i), model.text_head(hidden[:, None])[:, 0], temperature, top_p)
        ids = jnp.where(done, eos, ids)
        out = jax.lax.dynamic_update_slice_in_dim(out, ids[:, None], i, 1)
        hidden, cache = one_token(
            model, model.text_embedding(ids[:, None])[:, 0], starts, cache, prompts.shape[1] + i
        )
        return i + 1, hidden, cache, out, done | (ids == eos)

    out = jnp.full((prompts.shape[0], most), eos, jnp.int32, out_sharding=sh.BATCH)
    done = jnp.zeros(prompts.shape[0], bool, out_sharding=sh.BATCH)
    return jax.lax.while_loop(going, step, (jnp.int32(0), hidden, cache, out, done))[3]
