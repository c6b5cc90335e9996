"""Prompts and what follows them: guided image ids and text answers, any number of rows.

Rows come in a few numbers (`ROWS`), caches in a few lengths (`cache_length`), and these two alone
decide what is compiled; more rows are run slice by slice. Prompts end at one place, each row's
padding on the left is masked, and positions start at its BOS.
"""

import dataclasses

import jax
import numpy as np

from janus_jax.common import heap
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.serving import cache_dtype, serving
from janus_jax.sample.programs import CHUNK, IMAGE, READ, advance, grow, paint, see

ROWS = (2, 8, 32)  # on CPU at most 8: more are no faster together
AHEAD = 128  # places behind the prompt that a first cache has
WHOLE = 4  # most rows of a picture's first cache that has all its places (`places_ahead`)
SHORT = 256  # tokens of a prompt up to which it is read in short stretches


@dataclasses.dataclass(eq=False)
class Prompt:
    """ids: int32 [n]. shown: the features [n, D] of its pictures, used where `is_shown`, bool [n].
    Rows with one and the same prompt read it once."""

    ids: np.ndarray
    shown: np.ndarray | None = None
    is_shown: np.ndarray | None = None


def round_up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def row_counts() -> list[int]:
    """The numbers of rows that are run: whole pairs on every device of the batch axes."""
    most = 8 if sh.platform() == "cpu" else ROWS[-1]
    return [round_up(rows, 2 * sh.batch_shards()) for rows in ROWS if rows <= most]


def cache_length(places: int) -> int:
    """The length of a cache for so many places; 640 is a short prompt and a picture, 768 a question
    about one and the beginning of its answer."""
    return next(n for n in (256, 640, 768, *(1024 << i for i in range(32))) if n >= places)


def places_ahead(rows: int, kind: int, most: int) -> int:
    """How many places a first cache has behind the prompt. A picture fills all: to read empty ones costs an
    accelerator 1 % of a token where rows are few, a second length seconds of compiling."""
    whole = kind == IMAGE and rows <= WHOLE and sh.platform() != "cpu"
    return most if whole else min(most, AHEAD)


def put(x) -> jax.Array:
    """Rows of the host, split over the batch axes."""
    return jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH))


def stretches(prompts: list[Prompt], rows: int, end: int, width: int, dtype):
    """What `read` takes, stretch by stretch, so that each prompt ends before place `end` of every row
    that has it. prompts: of the first of `rows`; width, dtype: of features."""
    shards = sh.batch_shards()
    share = rows // shards
    size = READ[1] if max(len(prompt.ids) for prompt in prompts) > SHORT else READ[0]
    owners = []  # of each device: its different prompts, with the rows of each
    for i in range(shards):
        mine = {}
        for row, prompt in enumerate(prompts[i * share : (i + 1) * share]):
            mine.setdefault(prompt, []).append(row)
        owners.append(list(mine.items()))
    nothing = Prompt(np.zeros(0, np.int32)), []
    for turn in range(max(map(len, owners))):
        now = [own[turn] if turn < len(own) else nothing for own in owners]
        longest = round_up(max(len(prompt.ids) for prompt, _ in now), size)
        starts = np.array([end - len(prompt.ids) for prompt, _ in now], np.int32)
        first = np.array([taken[0] if taken else 0 for _, taken in now], np.int32)
        takers = np.zeros((shards, share), bool)
        for device, (_, taken) in zip(takers, now):
            device[taken] = True
        for at in range(end - longest, end, size):
            at = max(at, 0)  # what two stretches share is read twice
            ids = np.zeros((shards, size), np.int32)
            shown = np.zeros((shards, size, width), dtype)
            is_shown = np.zeros((shards, size), bool)
            for i, ((prompt, _), start) in enumerate(zip(now, starts)):
                there = slice(min(max(start - at, 0), size), size)
                part = slice(max(at - start, 0), max(at + size - start, 0))
                ids[i, there] = prompt.ids[part]
                if prompt.shown is not None:
                    shown[i, there] = prompt.shown[part]
                    is_shown[i, there] = prompt.is_shown[part]
            some = (ids, shown, is_shown, starts, first, takers.reshape(-1))
            yield (*map(put, some), np.int32(at))


def blank_state(model, rows: int, length: int):
    """An empty cache of so many places, no hidden state, nobody done."""
    c = model.transformer.config
    dtype = model.transformer.dtype
    shape = (rows, c.heads, length, c.width // c.heads)
    split = jax.NamedSharding(jax.sharding.get_mesh(), sh.CACHE_BHSK)
    zeros = jax.device_put(np.zeros(shape, cache_dtype(dtype)), split)
    copy = lambda: jax.device_put(zeros, split, may_alias=False)  # compiles nothing
    cache = [(copy(), copy()) for _ in range(c.layers)]
    return cache, put(np.zeros((rows, c.width), dtype)), put(np.zeros(rows, bool))


def rows_written(model, prompts: list[Prompt], seeds, numbers, kind, eos, scale, most, steps, how):
    """`written` for the rows of one pass."""
    leaves, tree = jax.tree.flatten(model)
    c = model.transformer.config
    count = len(prompts)
    rows = next(n for n in row_counts() if n >= count)
    fill = lambda values, dtype: np.array([*values, *[values[-1]] * (rows - count)], dtype)
    end = round_up(max(len(prompt.ids) for prompt in prompts), READ[0])
    starts = put(fill([end - len(prompt.ids) for prompt in prompts], np.int32))
    mix = np.eye(2) if scale is None else np.full((2, 2), (scale, 1 - scale))
    mix = put(np.tile(mix, (rows // 2, 1)).reshape(-1, 2, 2).astype(np.float32))
    seeds, numbers = put(fill(seeds, np.uint32)), put(fill(numbers, np.int32))
    writing = np.int32(kind), starts, seeds, numbers, mix, np.int32(eos), *map(np.float32, how)
    length = cache_length(end + places_ahead(rows, kind, most))
    state = blank_state(model, rows, length)

    def call(state, reading, stretch, steps, first):
        numbers = map(np.int32, (steps, first, end + first))
        given = np.int32(reading), stretch, writing, *numbers
        return advance(leaves, state, *given, tree=tree)

    for stretch in stretches(prompts, rows, end, c.width, model.transformer.dtype):
        state, _ = call(state, 1, stretch, 0, 0)
    heap.trim()  # what compiling took
    waiting = []  # images: the device works on a chunk while the host tells of the one before
    for first in range(0, most, steps):
        now = min(steps, most - first)
        if end + first + now > length:
            length = cache_length(end + first + now)
            for i in range(c.layers):  # at most one layer is there twice
                state[0][i] = grow(state[0][i], length)
        state, ids = call(state, 0, stretch, now, first)
        waiting.append(ids)
        if kind != IMAGE or len(waiting) > 1:
            yield np.asarray(waiting.pop(0))[:count, :steps]
        if kind != IMAGE and np.asarray(state[2])[:count].all():
            return
    for ids in waiting:
        yield np.asarray(ids)[:count, :steps]


def written(model, prompts: list[Prompt], seeds, numbers, *, most: int, steps: int, **how):
    """What follows the prompts, int32 [prompts, most], eos once a row is done; a generator.

    seeds, numbers: of each row, see `row_keys`.
    most, steps: how many tokens, and how many between two looks.
    how: as `rows_written` takes it. Yields (rows before, tokens before, new ids [rows, n]), and is
        sent True where the rest of these rows is not wanted.
    """
    model = serving(model)
    out = np.full((len(prompts), most), how["eos"], np.int32)
    size = row_counts()[-1]
    for row in range(0, len(prompts), size):
        rows = slice(row, row + size)
        at = 0
        parts = prompts[rows], seeds[rows], numbers[rows]
        for ids in rows_written(model, *parts, most=most, steps=steps, **how):
            ids = ids[:, : most - at]
            if (ids < 0).any():
                raise ValueError(
                    "the model's logits are not finite: its weights hold NaN or overflow (a run that "
                    "diverged?), or cfg_scale is too large for them; take an earlier checkpoint"
                )
            out[rows, at : at + steps] = ids
            at += ids.shape[1]
            if (yield row, at, ids):
                break
    return out


def run(model, work, tell):
    """What a generator returns: it runs in `own_jax`; `tell` answers what it yields outside."""
    answer = None
    while True:
        with own_jax(model):
            try:
                item = work.send(answer)
            except StopIteration as end:
                heap.trim()
                return end.value
        answer = tell(item)


def image_ids(
    model, prompts: list[tuple[Prompt, Prompt]], seeds, numbers, cfg_scale: float,
    temperature: float, count: int, progress=None,
) -> np.ndarray:  # fmt: skip
    """`count` image ids per row under classifier-free guidance, int32 [B, count].

    prompts: of each row the conditional and the unconditional one, begin_of_image last. At scale 1
        or 0 only the branch that counts is run.
    seeds, numbers: see `row_keys`.
    progress(done, total) is called as ids come.
    """
    guided = cfg_scale not in (0, 1)
    per = 2 if guided else 1
    kept = prompts if guided else [(pair[cfg_scale == 0],) for pair in prompts]
    rows = [row for some in kept for row in some]

    def tell(item):
        row, done, ids = item
        if progress:
            progress(row // per * count + done * len(ids) // per, len(prompts) * count)

    work = written(
        model, rows, np.repeat(seeds, per), np.repeat(numbers, per), most=count,
        steps=min(count, CHUNK), kind=IMAGE, eos=0, scale=cfg_scale if guided else None,
        how=(temperature, 1.0),
    )  # fmt: skip
    return run(model, work, tell)[::per]


def pixels(model, ids: np.ndarray) -> np.ndarray:
    """The pictures [B, H, W, 3] of image ids, int32 [B, N]."""
    with own_jax(model):
        grid = model.config.generation_encoder.grid
        return one_by_one(paint, model.generation_encoder, ids, grid=grid)


def one_by_one(program, model, rows: np.ndarray, **static) -> np.ndarray:
    """`see` or `paint` of each row; as many at once as the mesh's batch axes have devices."""
    leaves, tree = jax.tree.flatten(model)
    each = sh.batch_shards()
    out = []
    for i in range(0, len(rows), each):
        some = rows[i : i + each]
        more = np.repeat(some[-1:], each - len(some), 0)
        done = program(leaves, put(np.concatenate([some, more])), tree=tree, **static)
        out.append(np.asarray(done)[: len(some)])
    heap.trim()
    return np.concatenate(out)


def clear_caches():
    """Gives back the memory of all programs that draw and answer."""
    for program in (advance, grow, see, paint):
        program.clear_cache()
