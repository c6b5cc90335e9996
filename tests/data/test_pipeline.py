"""Batches: exact ratios, exact resume, and epochs in orders of their own."""

import collections
import json

import numpy as np
import pytest
from support.quick import (
    ROWS,
    SOURCES,
    Listed,
    batches,
    taken,
)

from janus_jax.config import schema
from janus_jax.model import batch as bt


@pytest.mark.parametrize(
    "ratio",
    [(2, 3, 5), (1, 0, 1), (0, 1, 0), (7, 3, 10), (0.5, 0.5, 0.0)],
    ids=lambda r: ":".join(map(str, r)),
)
def test_the_ratio_counts_examples(processor, ratio):
    ratio = dict(zip(bt.TASKS, ratio))
    sources = {
        task: SOURCES[task] for task in bt.TASKS if ratio[task]
    }  # what is not asked for may be absent
    counts = collections.Counter()
    for _, examples in taken(batches(processor, sources, ratio), 60):
        counts.update(bt.count_examples(examples))
    total, examples = sum(ratio.values()), sum(counts[task] for task in bt.TASKS)
    assert examples > 200
    # Exact but for the examples that wait for a row of their stream.
    for task in bt.TASKS:
        waiting = 3 * ROWS.count if 0 < ratio[task] < total else 0
        assert abs(counts[task] - examples * ratio[task] / total) <= waiting


def same(a, b):
    (a, examples), (b, expected) = a, b
    np.testing.assert_array_equal(examples, expected)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_resume_is_bit_identical(processor):
    iterator = batches(processor)
    for _ in range(5):
        next(iterator)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = [next(iterator) for _ in range(6)]
    again = batches(processor)
    again.set_state(state)
    for batch in expected:
        same(next(again), batch)


def test_seeds_and_epochs_differ_and_the_same_seed_does_not(processor):
    one, two, other = (taken(batches(processor, seed=seed), 3) for seed in (3, 3, 4))
    for a, b in zip(one, two):
        same(a, b)
    assert any((a["tokens"] != b["tokens"]).any() for (a, _), (b, _) in zip(one, other))
    words = [f"{a}{b}" for a in "ab" for b in "stuvwxyz"]
    rows = schema.Rows(count=len(words), length=60, understanding_images=0, generation_images=1)
    source = {"generation": Listed(*({"captions": [w]} for w in words))}
    (first, _), (second, _) = taken(
        batches(processor, source, dict(understanding=0, text=0, generation=1), rows, dropout=0.0),
        2,
    )
    assert {bytes(r) for r in first["tokens"]} == {
        bytes(r) for r in second["tokens"]
    }  # every record, each epoch
    assert (first["tokens"] != second["tokens"]).any()  # in another order
