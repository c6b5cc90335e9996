"""Examples to rows: text cut where an example is too long, the fullest choice for a row, and the
row's arrays."""

import numpy as np

from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt

PER_TOKEN = ("tokens", "role", "supervised")
LEAST = 8  # tokens of a stretch that always stay


def shorten(spans: list[tuple], length: int, eos: int) -> tuple[list[tuple], bool]:
    """Spans that fit `length` tokens, and whether any text was cut. The template and the pictures
    stay as they are.

    The longest stretch of words is cut, or, while that is not enough, the last question is left
    out with its answer. What end of sentence closes loses its end, and nobody learns to stop
    there; other words lose their middle. Raises RecordError when all this is not enough.
    """
    total = lambda: sum(len(ids) for ids, _, _ in spans)
    closes = lambda k: k < len(spans) and list(spans[k][0]) == [eos]
    stretches = lambda: [
        len(ids) if role == bt.TEXT and flag and not closes(k) else 0
        for k, (ids, role, flag) in enumerate(spans)
    ]
    whole = total()
    beyond = np.cumsum([len(ids) for ids, _, _ in spans]) - length  # up to the end of each span
    spare = np.maximum(np.maximum.accumulate(stretches()) - LEAST, 0)  # by one cut of those
    ends = [k + 1 for k in range(len(spans) - 1) if closes(k)] + [len(spans)]
    spans = spans[: next((n for n in reversed(ends) if beyond[n - 1] <= spare[n - 1]), ends[0])]
    while (over := total() - length) > 0:
        words = stretches()
        at = int(np.argmax(words))
        if words[at] <= LEAST or over > sum(words):
            raise RecordError(
                "too long",
                f"an example of {whole} tokens does not fit rows of {length}: all but {sum(words)} "
                f"are pictures and template; raise the stage's rows.length",
            )
        spans = _cut(spans, at, max(words[at] - over, LEAST), closes(at + 1))
    return spans, whole > length


def _cut(spans: list[tuple], at: int, size: int, closed: bool) -> list[tuple]:
    """The spans with stretch `at` cut to `size` tokens; closed: by end of sentence."""
    ids, role, flag = spans[at]
    before = spans[:at]
    after = spans[at + 1 :]
    if closed and len(after) > 1:
        return [*before, (ids[:size], role, flag), (after[0][0], role, 0), *after[1:]]
    if closed:
        return [*before, (ids[: size + 1], role, flag)]  # the mark's place is free
    left = ids[: size // 2]
    right = ids[size // 2 - size :]
    # The first word after the gap is not predicted: it does not follow from those before.
    pieces = [(left, role, flag), (right[:1], role, bt.GIVEN), (right[1:], role, flag)]
    return [*before, *pieces, *after]


def choose(sizes: list[tuple[int, ...]], length: int, most: tuple[int, ...]) -> list[int]:
    """The examples that fill a row best: the first, which has waited longest, and of the others
    those that leave the fewest positions empty; the older ones where that is equal.

    sizes: (tokens, images to understand, images to generate) of each; most: of such images in a
    row. An exact subset sum: bit t of a number says that t tokens can be reached, one number for
    each count of images.
    """
    first = sizes[0]
    reached = {first[1:]: 1 << first[0]}
    before = []
    mask = (1 << (length + 1)) - 1
    for tokens, *images in sizes[1:]:
        before.append(reached)
        grown = dict(reached)
        for counts, totals in reached.items():
            cell = tuple(map(sum, zip(counts, images)))
            moved = totals << tokens & mask
            if moved and all(n <= limit for n, limit in zip(cell, most)):
                grown[cell] = grown.get(cell, 0) | moved
        reached = grown
        if any(totals >> length for totals in reached.values()):
            break  # full: the younger ones wait
    fewest = lambda counts: tuple(-n for n in counts)
    total, cell = max((totals.bit_length() - 1, fewest(n)) for n, totals in reached.items())
    cell = fewest(cell)
    taken = [0]
    for i in range(len(before), 0, -1):
        if before[i - 1].get(cell, 0) >> total & 1:
            continue  # reached without it
        tokens, *images = sizes[i]
        taken.append(i)
        total = total - tokens
        cell = tuple(a - b for a, b in zip(cell, images))
    return sorted(taken)


def assemble(examples: list[dict], length: int, roles=bt.SLOTS) -> dict:
    """One row of a batch without its pictures (see batch.py): targets and slots of examples laid
    end to end. roles: of each kind of slot."""
    sizes = [len(e["tokens"]) for e in examples]
    padding = np.zeros(length - sum(sizes))
    join = lambda parts, dtype: np.concatenate([*parts, padding]).astype(dtype)
    tokens, role, supervised = (join([e[name] for e in examples], np.int32) for name in PER_TOKEN)
    segment = join([np.full(n, i + 1) for i, n in enumerate(sizes)], np.int32)
    following = np.zeros(length, bool)
    following[:-1] = (segment[1:] == segment[:-1]) & (segment[1:] > 0)
    after = lambda x: np.append(x[1:], x[:1])
    slots = {
        f"{kind}_slots": np.where(role == r, np.cumsum(role == r), 0).astype(np.int32)
        for kind, r in roles.items()
    }
    predicts = following & (after(supervised) == 1)
    text_next = predicts & (after(role) == bt.TEXT)
    codes = np.array([0, *(int(e["example"][0]) % bt.TRUNCATED for e in examples)], np.int32)
    return {
        "tokens": tokens,
        "text_targets": np.where(text_next, after(tokens), bt.IGNORE).astype(np.int32),
        "image_targets": np.where(predicts, after(slots["generation_slots"]), 0).astype(np.int32),
        **slots,
        "positions": join([np.arange(n) for n in sizes], np.int32),
        "segment_ids": segment,
        # Words beside drawings (interleaved.py) are learned, and counted, as understanding's.
        "tasks": np.where(text_next & (codes[segment] == 3), 1, codes[segment]),
    }
