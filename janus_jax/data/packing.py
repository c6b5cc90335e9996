"""Examples to rows: text cut where an example is too long, the fullest choice for a row, and the row's arrays."""

import itertools

import numpy as np

from janus_jax import batch as bt
from janus_jax.data.sources import RecordError

PER_TOKEN = ("tokens", "role", "supervised")


def shorten(example: dict, length: int) -> dict:
    """Cuts the longest stretch of text, prompt or target, until the example fits, and marks it so.

    A prompt keeps its last 8 tokens (the template's "Assistant:", begin_of_image); a target that is cut at the
    example's end loses its end of sentence too, so that nobody learns to stop there. Raises RecordError when
    no stretch is long enough.
    """
    over = len(example["tokens"]) - length
    if over <= 0:
        return example
    kind = np.where(example["role"] == bt.TEXT, example["supervised"], -1)
    edges = np.r_[0, np.flatnonzero(np.diff(kind)) + 1, len(kind)]
    runs = [(b - a, a, b) for a, b in itertools.pairwise(edges) if kind[a] >= 0]
    size, _, end = max(runs)
    tail = 8 if kind[end - 1] == 0 else int(end < len(kind))
    if size < over + tail + 1:
        raise RecordError(
            "too long",
            f"an example of {len(kind)} tokens does not fit rows of {length}: its longest text has {size}, the "
            f"rest are pictures and template; raise the stage's rows.length",
        )
    keep = np.r_[0 : end - over - tail, end - tail : len(kind)]
    cut = {name: example[name][keep] for name in PER_TOKEN}
    return {**example, **cut, "example": example["example"] + bt.TRUNCATED}


def choose(sizes: list[tuple[int, int, int]], length: int, pictures: int, images: int) -> list[int]:
    """The examples that fill a row best: the first, which has waited longest, and of the others those that leave
    the fewest positions empty; the older ones where that is equal.

    sizes: (tokens, pictures to understand, pictures to generate) of each. An exact subset sum: bit t of a number
    says that t tokens can be reached, one number for each count of pictures and images.
    """
    first = sizes[0]
    reached, before = {first[1:]: 1 << first[0]}, []
    mask = (1 << (length + 1)) - 1
    for tokens, p, g in sizes[1:]:
        before.append(reached)
        grown = dict(reached)
        for (a, b), totals in reached.items():
            cell, moved = (a + p, b + g), totals << tokens & mask
            if moved and cell[0] <= pictures and cell[1] <= images:
                grown[cell] = grown.get(cell, 0) | moved
        reached = grown
        if any(totals >> length for totals in reached.values()):
            break  # full: the younger ones wait
    total, cell = max((totals.bit_length() - 1, (-a, -b)) for (a, b), totals in reached.items())
    cell, taken = (-cell[0], -cell[1]), [0]
    for i in range(len(before), 0, -1):
        if before[i - 1].get(cell, 0) >> total & 1:
            continue  # reached without it
        tokens, p, g = sizes[i]
        taken.append(i)
        total, cell = total - tokens, (cell[0] - p, cell[1] - g)
    return sorted(taken)


def assemble(examples: list[dict], length: int) -> dict:
    """One row of a batch without its pictures (see batch.py): targets and slots of examples laid end to end."""
    sizes = [len(e["tokens"]) for e in examples]
    join = lambda parts, dtype: np.concatenate([*parts, np.zeros(length - sum(sizes))]).astype(dtype)
    tokens, role, supervised = (join([e[name] for e in examples], np.int32) for name in PER_TOKEN)
    segment = join([np.full(n, i + 1) for i, n in enumerate(sizes)], np.int32)
    following = np.zeros(length, bool)
    following[:-1] = (segment[1:] == segment[:-1]) & (segment[1:] > 0)
    after = lambda x: np.append(x[1:], x[:1])
    slots = {r: np.where(role == r, np.cumsum(role == r), 0).astype(np.int32) for r in (bt.PICTURE, bt.IMAGE)}
    text_next = following & (after(role) == bt.TEXT) & (after(supervised) == 1)
    codes = np.array([0, *(int(e["example"][0]) % bt.TRUNCATED for e in examples)], np.int32)
    return {
        "tokens": tokens,
        "text_targets": np.where(text_next, after(tokens), bt.IGNORE).astype(np.int32),
        "image_targets": np.where(following, after(slots[bt.IMAGE]), 0).astype(np.int32),
        "picture_slots": slots[bt.PICTURE],
        "image_slots": slots[bt.IMAGE],
        "positions": join([np.arange(n) for n in sizes], np.int32),
        "segment_ids": segment,
        "tasks": codes[segment],
    }
