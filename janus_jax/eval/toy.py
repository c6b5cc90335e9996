"""What the toy benchmarks of both halves share: how much is asked of which world."""

import itertools
import re
import urllib.parse
from collections.abc import Iterable

import numpy as np

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import near, short
from janus_jax.data.image_files import ImageError
from janus_jax.data.sources import RecordError, Source


def options(path: str, world: str, **defaults: int | str) -> dict[str, int | str]:
    """The numbers and words of a path such as "shapes:50?seed=1000".

    Args:
        path: "WORLD:NUMBER?NAME=VALUE&NAME=VALUE"; each part after the colon may be left out.
        world: what must stand before the colon.
        defaults: the names that it may give, what they are where it does not (a word where that
            is one), and first the one that NUMBER stands for.

    Raises UsageError that lists what cannot be read.
    """
    first, *others = defaults
    shown = "&".join(f"{key}={defaults[key] or key.upper()}" for key in others)
    form = f"{world}:{defaults[first]}?{shown}"
    head, _, query = path.partition("?")
    name, colon, whole = head.partition(":")
    if name != world or not colon:
        raise UsageError(f"{short(path)}: no path of the world {world}; the form is {form}")
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    given = [(first, whole), *pairs] if whole else pairs
    problems = [
        f"{key!r} is unknown{near(key, defaults)}"
        if key not in defaults
        else f"{key}={short(value, 40)!r}: give a whole number"
        for key, value in given
        if key not in defaults
        or (isinstance(defaults[key], int) and not re.fullmatch(r"\d{1,9}", value))
    ]
    if problems:
        raise UsageError(f"{short(path)}: {'; '.join(problems)}; the form is {form}")
    return defaults | {key: type(defaults[key])(value) for key, value in given}


def interleaved(groups: Iterable[list]) -> list:
    """The first of each group, the second of each and so on, so that the first N of all are of all
    groups alike."""
    rounds = itertools.zip_longest(*groups)
    return [one for some in rounds for one in some if one is not None]


def pick(source: Source, rng, count: int) -> list[int]:
    """At most `count` record numbers of a data set at random; left out are interleaved documents,
    other senses and what cannot be read."""
    picks = []
    for i in map(int, rng.permutation(len(source))):
        if len(picks) == count:
            break
        try:
            record = source[i]
            _ = source.image(i)
        except (RecordError, ImageError):
            continue
        picks += [] if record.keys() & {"document", "senses"} else [i]
    return picks


def through_tokenizer(model, true: np.ndarray) -> np.ndarray:
    """Pictures, uint8 [B, S, S, 3], after the VQ tokenizer's encode and decode: float32, -1 to 1."""
    import jax  # what reading and grading do without

    from janus_jax.model import batch as bt
    from janus_jax.sample.generate import decode_ids

    encoder = model.generation_encoder
    ids = jax.jit(type(encoder).encode)(encoder, bt.pixels(true))
    return decode_ids(model, np.asarray(ids))
