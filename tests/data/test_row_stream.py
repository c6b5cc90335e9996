"""What a row stream makes of records, and which it passes over."""

import json
import re

import numpy as np
import pytest
from support.quick import MODEL, G, Listed, asked, dialogue, packed, refused

from janus_jax.config import schema
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.messages import PICTURE
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.pipeline import Batches
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.row_stream import RowStream
from janus_jax.model import batch as bt


def test_answers_only_reaches_the_batch(processor):
    record = {"messages": dialogue(asked("what color?"), "red")}
    row, _ = packed(processor, {"understanding": Listed(record)}, supervise="answers")
    ids = row["text_targets"][0][row["text_targets"][0] != bt.IGNORE]
    one = [*processor.tokenizer.encode(" red")[0], processor.tokenizer.eos]
    assert ids.tolist() == one * (len(ids) // len(one)) and len(ids)


def test_a_picture_that_does_not_fit_is_no_example(processor):
    rows = schema.Rows(count=1, length=G + 2, understanding_images=1, generation_images=1)
    message = refused(processor, {"generation": Listed({"captions": ["red"]})}, rows)
    assert re.search(r"does not fit rows of 38.*raise.*rows\.length", message)


@pytest.mark.parametrize(
    "task, messages, why",
    [
        ("understanding", dialogue("what color?", "red"), "has no image part"),
        (
            "understanding",
            dialogue([PICTURE, *asked("same?")], "yes"),
            "has 2 pictures, a row takes 1",
        ),
        ("text", dialogue(asked("what color?"), "red"), "has 1 image parts"),
        ("text", dialogue("what color?"), "nothing in it is to be predicted"),
    ],
)
def test_a_record_that_is_no_example(processor, task, messages, why):
    assert why in refused(processor, {task: Listed({"messages": messages})}, supervise="answers")


def test_long_texts_go_on_in_later_rows_each_token_once_wherever_the_run_stops(processor):
    t = processor.tokenizer
    words = [" ".join(f"{a}{b}{i}" for b in "uvwxyz" * 20) for i, a in enumerate("abcde")]
    texts = [*words, "short one", "w" * 400, "汉字" * 60]
    source = Listed(*({"text": text} for text in texts))
    rows = schema.Rows(2, 60, 0, 0)
    only = {"understanding": 0, "text": 1, "generation": 0}
    mixture = Mixture([Entry("it", "text", source, continues=True)], only, 0, rows.count)
    encoder = ExampleEncoder(processor, MODEL, rows, "all")
    said = {}
    flags = []
    for number in range(rows.count):
        stream = RowStream(mixture, encoder, number)
        for step in range(60):
            row = stream.row(step)
            for k, (_, position, index, code, _) in enumerate(row["drawn"], 1):
                ids = row["tokens"][row["segment_ids"] == k].tolist()
                targets = row["text_targets"][row["segment_ids"] == k].tolist()
                assert ids[0] == t.bos and targets == [*ids[1:], bt.IGNORE]
                assert (code == 2 + bt.CONTINUED) == (ids[-1] != t.eos)
                said.setdefault((position, index), []).extend(ids[1:])
                flags.append(code)
            if step % 7 == 3:  # the run stops here, and goes on from the state alone
                state = json.loads(json.dumps(stream.state()))
                stream = RowStream(mixture, encoder, number, state)
    whole = {at: ids for at, ids in said.items() if ids[-1] == t.eos}
    assert {index for _, index in whole} == set(range(len(texts)))
    for (_, index), ids in whole.items():
        assert ids.count(t.eos) == 1 and t.decode(ids) == texts[index]
        if index < 6:  # words divided by spaces have the ids of the text encoded whole
            assert ids == [*t.encode(texts[index])[0], t.eos]
    stats = ReadStats(mixture)
    stats.count(0, np.array([(0, 0, 0, 0, code, 1) for code in flags]))
    stats.merge([{"news": [], "counts": stats.take()}])
    assert stats.shares(0)[0][-2:] == (sum(code > bt.CONTINUED for code in flags), 0)


def test_a_text_that_waits_goes_on_where_it_stopped_in_other_rows(processor):
    """Rows of another length, and another number of them: nothing comes twice, nothing is lost."""
    text = " ".join(f"{a}{b}{c}" for a in "abcd" for b in "uvwxyz" for c in "123456")
    t = processor.tokenizer
    only = {"understanding": 0, "text": 1, "generation": 0}

    def made(count, length):
        rows = schema.Rows(count, length, 0, 0)
        mixture = Mixture(
            [Entry("it", "text", Listed({"text": text}), continues=True)], only, 0, count
        )
        return Batches(mixture, ExampleEncoder(processor, MODEL, rows, "all"), accept=True)

    parts = {}
    first = made(2, 60)
    second = made(3, 90)
    for batches, steps in ((first, 5), (second, 40)):
        for batch, examples in (next(batches) for _ in range(steps)):
            for row in range(len(batch["tokens"])):
                here = examples[examples[:, 0] == row]
                for k, position in enumerate(here[:, bt.EXAMPLE_COLUMNS.index("position")], 1):
                    ids = batch["tokens"][row][batch["segment_ids"][row] == k][1:]
                    parts.setdefault(int(position), []).extend(ids.tolist())
        if batches is first:
            second.set_state(json.loads(json.dumps(first.get_state())))
        batches.close()
    done = [ids for ids in parts.values() if ids[-1] == t.eos]
    assert len(done) > 3 and all(ids == [*t.encode(text)[0], t.eos] for ids in done)
    assert {0, 1} <= parts.keys()


def with_ids(*ids):
    return {"generation": Listed(*({"captions": ["red"], "image_ids": i} for i in ids))}


def test_precomputed_ids_take_the_place_of_pixels(processor):
    codes = [np.full(G, k) + np.arange(G) for k in range(3)]
    rows = schema.Rows(count=2, length=150, understanding_images=1, generation_images=2)
    batch, _ = packed(processor, with_ids(*codes), rows, ids=True)
    expected = bt.shapes(2, 150, 1, 2, MODEL, precomputed=True)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == expected
    assert all(any((row == c).all() for c in codes) for row in batch["image_ids"].reshape(-1, G))
    assert len(np.unique(batch["image_ids"][..., 0])) > 1


@pytest.mark.parametrize(
    "ids",
    [[0] * (G - 1) + [64], [-1] + [0] * (G - 1), [0] * (G - 1), []],
    ids=["high", "low", "few", "none"],
)
def test_precomputed_ids_out_of_range_are_named(processor, ids):
    message = refused(processor, with_ids(ids), ids=True)
    assert "record 0: image_ids must be 36 numbers in [0, 64); got" in message
