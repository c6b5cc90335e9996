"""Batches of the quick start's model: sources of the shapes world, or records that are listed by
hand."""

import functools

import numpy as np
import pytest
from support import tiny

from janus_jax.config import schema
from janus_jax.config.schema import Template
from janus_jax.data import catalog
from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.data.processor import Processor
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import shapes_sources
from janus_jax.model import batch as bt
from janus_jax.model import presets

MODEL = presets.quickstart()
N, G = MODEL.understanding_encoder.tokens, MODEL.generation_encoder.tokens
ROWS = schema.Rows(count=4, length=200, understanding_images=3, generation_images=3)
RATIO = {"understanding": 2, "text": 3, "generation": 5}
SOURCES = {
    "understanding": shapes_sources.ShapesUnderstanding(0, 101),
    "text": shapes_sources.ShapesText(0, 103),
    "generation": shapes_sources.ShapesGeneration(0, 97),
}
EOS = "<｜end▁of▁sentence｜>"


class Listed:
    """A source over given records, whose every picture is of the one colour `40 + index`."""

    def __init__(self, *records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self.records[i]

    def image(self, i, k=0):
        return np.full((24, 24, 3), 40 + i, np.uint8)

    def where(self, i):
        return f"record {i}"

    @property
    def fingerprint(self):
        return f"{len(self)} records"


@functools.cache
def processor() -> Processor:
    tokenizer = catalog.learn_tokenizer(list(SOURCES.values()), Template(), 384, records=50)
    return Processor(tokenizer, Template(system=""), N, G)


def batches(processor, sources=SOURCES, ratio=RATIO, rows=ROWS, model=MODEL, **changes):
    return tiny.batches(sources, processor, model, rows, ratio, **changes)


def taken(iterator, count):
    return [next(iterator) for _ in range(count)]


def dialogue(*turns):
    """Messages from texts in turn; a picture opens the first one where it is a list."""
    contents = [turn if isinstance(turn, list) else [turn] for turn in turns]
    return [Turn(("user", "assistant")[k % 2], laid_out(c)) for k, c in enumerate(contents)]


def asked(question):
    return [PICTURE, question]


def learned(processor, example):
    """The tokens to be predicted, as text with the special strings, "|" between stretches."""
    flags, out = example["supervised"], []
    for k in np.flatnonzero(flags):
        out += [[]] if not k or not flags[k - 1] else []
        out[-1].append(int(example["tokens"][k]))
    return "|".join(
        processor.tokenizer.backend.decode(ids, skip_special_tokens=False) for ids in out
    )


def packed(processor, sources, rows=None, **changes):
    """The first batch, and its examples, of sources that are read alone, one row wide."""
    ratio = {task: int(task in sources) for task in bt.TASKS}
    rows = rows or schema.Rows(count=1, length=120, understanding_images=1, generation_images=1)
    return taken(batches(processor, sources, ratio, rows, dropout=0.0, **changes), 1)[0]


def spans_of(row, name, n):
    """Start of each run of `n` slots, in order; fails where slots do not come in whole runs of
    their own."""
    slots = row[name]
    where = np.flatnonzero(slots)
    assert (slots[where] == np.arange(1, len(where) + 1)).all() and len(where) % n == 0
    starts = where[::n]
    assert (where == (starts[:, None] + np.arange(n)).reshape(-1)).all()
    segments = row["segment_ids"]
    assert all(len(set(segments[start : start + n])) == 1 for start in starts)
    return starts


def check_row(row, t):
    segments, positions = row["segment_ids"], row["positions"]
    used = np.flatnonzero(segments)
    assert (used == np.arange(len(used))).all() and (np.diff(segments[used]) >= 0).all()
    assert (np.unique(segments[used]) == np.arange(1, segments.max() + 1)).all()
    assert (row["text_targets"][len(used) :] == bt.IGNORE).all()
    assert not row["image_targets"][len(used) :].any() and not row["tasks"][len(used) :].any()
    for segment in range(1, segments.max() + 1):
        (at,) = np.nonzero(segments == segment)
        assert (positions[at] == np.arange(len(at))).all() and row["tokens"][at[0]] == t.bos
        (task,) = set(row["tasks"][at])
        # The last token of an example predicts nothing; every other target is the next token or the
        # next id.
        assert row["text_targets"][at[-1]] == bt.IGNORE and row["image_targets"][at[-1]] == 0
        targets, following = row["text_targets"][at[:-1]], row["tokens"][at[1:]]
        assert ((targets == bt.IGNORE) | (targets == following)).all()
        assert (row["image_targets"][at[:-1]] == row["generation_slots"][at[1:]]).all()
        assert bt.TASKS[task - 1] == "generation" or not row["generation_slots"][at].any()
        assert bt.TASKS[task - 1] == "understanding" or not row["understanding_slots"][at].any()
        assert (targets != bt.IGNORE).any() == (bt.TASKS[task - 1] != "generation")


def refused(processor, sources, rows=None, **changes) -> str:
    """Why no record of the sources can be used."""
    with pytest.raises(SourceError, match="100 records in a row cannot be used") as error:
        packed(processor, sources, rows, **changes)
    return str(error.value)
