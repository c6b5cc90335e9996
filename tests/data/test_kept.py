"""Batches of which some kinds are taken out: what stays is what was there, as packing leaves rows."""

import json

import numpy as np
import pytest
from support import quick, sets, tiny

from janus_jax.data.kept import keep_problems, kinds_kept, only
from janus_jax.data.kept_stats import KeptStats
from janus_jax.model import batch as bt

KEPT = [("understanding",), ("generation",), ("text",), ("understanding", "text")]
READ = ("tokens", "text_targets", "positions", "tasks")
NAMES = {"understanding_images": "understanding", "generation_images": "generation"}


@pytest.mark.parametrize("kinds", KEPT, ids="+".join)
def test_a_batch_is_that_which_packing_makes_of_the_kept_examples(kinds):
    orders = [("generation", "text", "understanding"), ("text", "understanding"), ("generation",)]
    of = lambda kept: tiny.stacked(
        [tiny.row([tiny.example(k, i) for k in o if k in kept]) for i, o in enumerate(orders)]
    )
    whole, want = of(bt.TASKS), of(kinds)
    examples = np.zeros((6, len(bt.EXAMPLE_COLUMNS)), np.int64)
    codes = [1 + bt.TASKS.index(kind) for order in orders for kind in order]
    examples[:, bt.EXAMPLE_COLUMNS.index("code")] = np.add(codes, bt.TRUNCATED)
    examples[:, bt.EXAMPLE_COLUMNS.index("record")] = np.arange(6)
    batch, left = only(kinds, whole, examples)
    assert batch.keys() == want.keys()
    for name, x in want.items():
        x = x[:, :0] if NAMES.get(name, kinds[0]) not in kinds else x
        assert batch[name].dtype == x.dtype
        np.testing.assert_array_equal(batch[name], x, err_msg=name)
    kinds_of = np.array([kind for order in orders for kind in order])
    records = left[:, bt.EXAMPLE_COLUMNS.index("record")]
    assert list(records) == [i for i in range(6) if kinds_of[i] in kinds]


def test_all_kinds_leave_a_batch_alone():
    batch, examples = tiny.rows(2), np.zeros((6, 6), np.int64)
    assert only(kinds_kept(""), batch, examples) == (batch, examples)


def examples_in(batch: dict, model) -> list[tuple]:
    """Each example of a batch as (row, kind, all that a step reads of it), its pictures by value."""
    boxes = {
        "understanding": ("understanding_slots", "understanding_images", model.understanding_encoder),
        "generation": ("generation_slots", "generation_images", model.generation_encoder),
    }  # fmt: skip
    out = []
    for r, segments in enumerate(batch["segment_ids"]):
        for number in range(1, segments.max() + 1):
            (at,) = np.nonzero(segments == number)
            assert np.all(np.diff(at) == 1)
            code = batch["tasks"][r, at[0]]
            text = [batch[name][r, at].tobytes() for name in READ]
            pictures = []
            for slots, images, box in boxes.values():
                read = batch[slots][r, at]
                pictures += [
                    batch[images][r, (slot - 1) // box.tokens].tobytes()
                    + bytes([slot % box.tokens])
                    for slot in read[read > 0]
                ]
            # Which of the picture's ids is to be predicted where.
            targets = batch["image_targets"][r, at] % model.generation_encoder.tokens
            out.append((r, bt.TASKS[code - 1], *text, targets.tobytes(), *pictures))
    return out


def compared(everything, switched: list, model):
    """That kept batches are the kept part of whole ones, examples by their ids and by content.
    everything: (batch, examples) of each step; switched: (kinds, as `everything`)."""
    for kinds, steps in switched:
        for (batch, examples), (kept, left) in zip(everything, steps, strict=True):
            codes = examples[:, bt.EXAMPLE_COLUMNS.index("code")] % bt.TRUNCATED
            there = [bt.TASKS[code - 1] in kinds for code in codes]
            np.testing.assert_array_equal(left, examples[there])
            want = [e for e in examples_in(batch, model) if e[1] in kinds]
            assert examples_in(kept, model) == want


@pytest.mark.parametrize("kinds", KEPT[:2], ids="+".join)
def test_each_step_holds_the_very_examples_also_after_a_stop(kinds):
    everything = quick.taken(quick.batches(quick.processor()), 12)
    data = quick.batches(quick.processor())
    found = [only(kinds, *next(data)) for _ in range(3)]
    position = json.loads(json.dumps(data.get_state()))
    data = quick.batches(quick.processor())
    data.set_state(position)
    found += [only(kinds, *next(data)) for _ in range(9)]
    compared(everything, [(kinds, found)], quick.MODEL)
    assert sum(len(left) for _, left in found) > 20


@pytest.mark.processes
@pytest.mark.slow
def test_each_step_holds_the_very_examples_with_workers():
    everything = quick.taken(sets.batches(), 3)
    data = sets.batches(workers=2)
    found = [next(data) for _ in range(3)]
    data.close()
    switched = [(kinds, [only(kinds, *one) for one in found]) for kinds in KEPT[:2]]
    compared(everything, switched, tiny.CONFIG)


def test_what_was_seen_is_what_was_kept():
    """Two data sets of understanding at 3:1 beside the other kinds."""
    sources = quick.SOURCES | {"more": ("understanding", quick.SOURCES["understanding"])}
    weights = {"understanding": 3.0}
    kinds = ("understanding", "text")
    data = quick.batches(quick.processor(), sources, weights=weights)
    data.stats = KeptStats(kinds, data.mixture)
    left = [only(kinds, *next(data))[1] for _ in range(12)]
    data.sync_counts()
    counts = np.bincount(np.concatenate(left)[:, 1], minlength=4)
    names = [e.name for e in data.mixture.entries]
    seen = dict(zip(names, counts))
    assert seen["generation"] == 0 < seen["more"] < seen["understanding"]
    metrics = data.stats.metrics(12)
    assert metrics.pop("bad_records") == 0
    assert metrics == {
        f"share_{n}": pytest.approx(seen[n] / counts.sum()) for n in names if n != "generation"
    }
    # 2 : 3 of what is kept, and 3 : 1 within the first
    assert {name: asked for name, _, asked, *_ in data.stats.shares(0)} == pytest.approx(
        {"understanding": 0.3, "more": 0.1, "text": 0.6, "generation": 0}
    )
    lines = data.stats.report()
    assert not any("generation " in line for line in lines[:-1])
    assert lines[-1].endswith("examples of generation were taken out)")


@pytest.mark.parametrize(
    "keep, ratio, told",
    [
        ("", (1, 1, 1), []),
        ("understanding+text", (2, 3, 5), []),
        ("generation", (1, 0, 1), []),
        ("understnding+pictures", (1, 1, 1), ["did you mean 'understanding'", "'pictures' is no"]),
        ("understanding+understanding", (1, 1, 1), ["names understanding twice"]),
        ("text", (1, 0, 1), ["ratio draws no text"]),
        ("understanding+", (1, 1, 1), ["'' is no kind"]),
        ("understanding+generation", (1, 0, 1), ["removes nothing; leave it out"]),
    ],
)  # fmt: skip
def test_a_switch_that_makes_no_sense_is_refused(keep, ratio, told):
    found = keep_problems("stages.one", keep, dict(zip(bt.TASKS, ratio)))
    assert len(found) == len(told)
    for line, words in zip(found, told):
        assert line.startswith(f"stages.one.options.keep is {keep!r}: ") and words in line


def test_inputs_of_a_further_sense_go_with_understanding():
    batch = {"tasks": np.ones((1, 4), int), "understanding_slots": np.zeros((1, 4), int)}
    batch |= {"segment_ids": np.ones((1, 4), int), "points_slots": np.ones((1, 4), int)}
    batch["points"] = np.ones((1, 2, 8, 3), np.float32)
    examples = np.zeros((0, len(bt.EXAMPLE_COLUMNS)), int)
    kept, _ = only(("understanding",), batch, examples)
    assert (kept["points"] == batch["points"]).all()
    gone, _ = only(("text",), batch, examples)
    assert gone["points"].shape == (1, 0, 8, 3)
