"""Examples laid into rows, which never mixes them."""

import collections
import random
import time

import pytest
from support.quick import (
    EOS,
    MODEL,
    ROWS,
    SOURCES,
    G,
    Listed,
    N,
    asked,
    batches,
    check_row,
    dialogue,
    learned,
    packed,
    spans_of,
    taken,
)

from janus_jax.config import schema
from janus_jax.data import packing, text, understanding
from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt


def test_packing_never_mixes_examples(processor):
    t, counts = processor.tokenizer, collections.Counter()
    captions = {}  # text of the prompt -> pictures that belong to it
    for i in range(len(SOURCES["generation"])):
        prompt = [
            k
            for span in processor.drawing(SOURCES["generation"][i]["captions"][0])
            for k in span[0]
        ]
        captions.setdefault(tuple(prompt), []).append(SOURCES["generation"].image(i))
    talks = {}
    for i in range(len(SOURCES["understanding"])):
        example = understanding.encode(
            SOURCES["understanding"][i], processor, "all", 200, "chat", 1
        )
        talks.setdefault(tuple(example["tokens"]), []).append(SOURCES["understanding"].image(i))
    for batch, examples in taken(batches(processor, dropout=0.0), 40):
        expected = bt.shapes(
            ROWS.count, ROWS.length, ROWS.understanding_images, ROWS.generation_images, MODEL
        )
        assert {k: (v.shape, v.dtype) for k, v in batch.items()} == expected
        for b in range(ROWS.count):
            row = {name: value[b] for name, value in batch.items()}
            check_row(row, t)
            _, _, _, _, codes, sizes = examples[examples[:, 0] == b].T
            segments = range(1, len(codes) + 1)
            assert row["segment_ids"].max() == len(codes)
            assert [int((row["segment_ids"] == s).sum()) for s in segments] == sizes.tolist()
            assert [
                int(row["tasks"][row["segment_ids"] == s][0]) for s in segments
            ] == codes.tolist()
            for name, n, pictures, known in (
                ("understanding_slots", N, row["understanding_images"], talks),
                ("generation_slots", G, row["generation_images"], captions),
            ):  # fmt: skip
                starts = spans_of(row, name, n)
                for k, start in enumerate(starts):
                    segment = row["segment_ids"][start]
                    ids = row["tokens"][row["segment_ids"] == segment]
                    key = tuple(ids) if known is talks else tuple(ids[: -G - 2])
                    assert any((pictures[k] == image).all() for image in known[key])
                assert not pictures[len(starts) :].any()
                counts[name] += len(starts)
            counts["rows of several pictures"] += len(spans_of(row, "generation_slots", G)) > 1
    assert min(counts.values()) > 20 and len(counts) == 3


def test_the_kth_picture_is_that_of_the_kth_slots(processor):
    """Every record has its own picture and its own word, so a swap cannot hide behind equal
    captions."""
    words = [f"{a}{b}" for a in "abcdef" for b in "uvwxyz"]
    drawn = Listed(*({"captions": [w]} for w in words))
    read = Listed(*({"messages": dialogue(asked("?"), w)} for w in words))
    rows = schema.Rows(count=2, length=300, understanding_images=3, generation_images=3)
    sources, ratio = (
        {"understanding": read, "generation": drawn},
        dict(understanding=1, text=0, generation=1),
    )
    for batch, _ in taken(batches(processor, sources, ratio, rows, dropout=0.0), 30):
        for b in range(rows.count):
            row = {name: value[b] for name, value in batch.items()}
            for name, n, pictures in (
                ("understanding_slots", N, "understanding_images"),
                ("generation_slots", G, "generation_images"),
            ):
                found = []
                for start in spans_of(row, name, n):
                    ids = row["tokens"][row["segment_ids"] == row["segment_ids"][start]]
                    said = processor.tokenizer.decode(ids)
                    answer = (
                        said.split("Assistant:")[1]
                        if name == "understanding_slots"
                        else said.split("User:")[1]
                    )
                    found.append(words.index(answer.split()[0]) + 40)
                assert row[pictures][: len(found), 0, 0, 0].tolist() == found


def test_targets_stop_at_the_end_of_an_example_even_where_the_next_begins_with_one():
    one = bt.sequence([([5], bt.TEXT, 1), ([6], bt.TEXT, 1)], "text")
    two = bt.sequence(
        [([7], bt.TEXT, 1), ([8], bt.GENERATION_SLOT, 1)], "generation", generation_images=[0]
    )
    row = packing.assemble([one, two], 5)
    assert row["text_targets"].tolist() == [6, *[bt.IGNORE] * 4]
    assert row["image_targets"].tolist() == [0, 0, 1, 0, 0]
    assert row["generation_slots"].tolist() == [0, 0, 0, 1, 0] and row["tasks"].tolist() == [
        2,
        2,
        3,
        3,
        0,
    ]


def test_long_text_is_cut_and_counted_and_pictures_are_not(processor):
    rows = schema.Rows(count=1, length=100, understanding_images=1, generation_images=1)
    t = processor.tokenizer
    long = " ".join(["red circle"] * 200)
    for sources, slots, n in (
        (
            {"understanding": Listed({"messages": dialogue(asked(long), "red")})},
            "understanding_slots",
            N,
        ),
        ({"generation": Listed({"captions": [long]})}, "generation_slots", G),
        ({"text": Listed({"text": long})}, None, 0),
    ):
        batch, examples = packed(processor, sources, rows, supervise="answers")
        assert bt.count_examples(examples)["truncated"] == 1
        assert (batch["segment_ids"] == 1).all()
        assert batch["tokens"][0, 0] == t.bos
        # A document that is cut has no end; a question that is cut still has its answer.
        assert (batch["tokens"][0, -1] == t.eos) == (slots is not None)
        if slots == "understanding_slots":
            assert batch["text_targets"][0][-3:-1].tolist() == [*t.encode(" red")[0], t.eos]
        if slots:
            assert len(spans_of({k: v[0] for k, v in batch.items()}, slots, n)) == 1
        if slots == "generation_slots":  # the prompt still ends where the first id is predicted
            assert batch["tokens"][0][batch["image_targets"][0] == 1].tolist() == [t.begin_of_image]
    _, examples = packed(processor, {"text": Listed({"text": "red"})}, rows)
    counts = bt.count_examples(examples)
    assert counts["truncated"] == 0 and counts["text"] > 1


def test_shortened_examples_fit_exactly_and_short_ones_are_left_alone(processor):
    record = {"messages": dialogue(asked("a " * 40), "red", "b " * 90, "blue")}
    spans = processor.learned(record, "answers", "chat")
    size = sum(len(ids) for ids, _, _ in spans)
    assert packing.shorten(spans, size, processor.tokenizer.eos) == (spans, False)
    for length in range(size - 30, size):
        cut = understanding.encode(record, processor, "answers", length, "chat", 1)
        assert all(len(cut[name]) == length for name in packing.PER_TOKEN)
        assert (cut["role"] == bt.UNDERSTANDING_SLOT).sum() == N
        assert cut["example"].tolist() == [1 + bt.TRUNCATED]
        assert learned(processor, cut).count(EOS) == 2


@pytest.mark.parametrize("supervise", ["all", "answers"])
@pytest.mark.parametrize("form", ["chat", "plain"])
def test_nobody_learns_to_stop_where_an_answer_was_cut(processor, form, supervise):
    said = {"messages": dialogue("red?", "red " * 80, "blue?", "blue")}
    cut = text.encode(said, processor, supervise, 60, form)
    assert len(cut["tokens"]) == 60 and cut["tokens"].tolist().count(processor.tokenizer.eos) == 2
    told = learned(processor, cut).split("|")
    assert told[-1].endswith(f"blue{EOS}") and sum(part.count(EOS) for part in told) == 1
    alone = text.encode({"messages": dialogue("red?", "red " * 80)}, processor, supervise, 60, form)
    assert len(alone["tokens"]) == 60 and EOS not in learned(processor, alone)


@pytest.mark.parametrize("form", ["chat", "plain"])
def test_a_long_question_loses_its_own_middle_and_neither_the_answer_nor_the_template(
    processor, form
):
    question = "what " + "is red and " * 80 + "blue?"
    said = {"messages": dialogue(question, "a circle")}
    cut = text.encode(said, processor, "all", 70, form)
    whole = processor.tokenizer.decode(cut["tokens"])
    assert len(cut["tokens"]) == 70 and cut["example"][0] & bt.TRUNCATED
    tag = "\n\nAssistant: " if form == "chat" else "\n"
    assert whole.endswith(f"blue?{tag}a circle")
    assert "what is red" in whole and learned(processor, cut).endswith(f"a circle{EOS}")


def test_what_one_cut_cannot_shorten_loses_its_last_questions_with_their_answers(processor):
    said = {"messages": dialogue(*["red circle?", "blue square"] * 30)}
    for form in ("chat", "plain"):
        cut = text.encode(said, processor, "all", 100, form)
        assert 80 < len(cut["tokens"]) <= 100 and cut["tokens"][-1] == processor.tokenizer.eos
        assert learned(processor, cut).count(EOS) == cut["tokens"].tolist().count(
            processor.tokenizer.eos
        )


def shortened_a_step_at_a_time(spans, length, eos):
    """The rule as it reads: the last question is left out while one cut is not enough."""
    total = lambda: sum(len(ids) for ids, _, _ in spans)
    while (over := total() - length) > 0:
        ends = [k for k, (ids, _, _) in enumerate(spans[:-1]) if ids == [eos]]
        words = [
            len(ids) if role == bt.TEXT and flag and ids != [eos] else 0
            for ids, role, flag in spans
        ]
        at = words.index(max(words))
        if words[at] - packing.LEAST < over and ends:
            spans = spans[: ends[-1] + 1]
        elif words[at] > packing.LEAST:
            closed = spans[at + 1 : at + 2] and spans[at + 1][0] == [eos]
            spans = packing._cut(spans, at, max(words[at] - over, packing.LEAST), closed)
        else:
            return None
    return spans


def random_spans(rng, eos):
    spans = [([0], bt.TEXT, 0)]
    for _ in range(rng.randint(0, 9)):
        spans.append(
            rng.choice(
                [
                    ([eos], bt.TEXT, 1),
                    ([8] * rng.randint(1, 4), bt.TEXT, 0),
                    ([9] * rng.randint(1, 12), bt.UNDERSTANDING_SLOT, 0),
                    (list(range(10, rng.randint(11, 35))), bt.TEXT, 1),
                    (list(range(10, rng.randint(11, 35))), bt.TEXT, bt.GIVEN),
                ]
            )
        )
    return spans


def test_examples_are_shortened_as_if_a_question_at_a_time_were_left_out():
    rng, eos = random.Random(5), 1
    counts = collections.Counter()
    for _ in range(5000):
        spans, length = random_spans(rng, eos), rng.randint(1, 80)
        expected = shortened_a_step_at_a_time(list(spans), length, eos)
        if expected is None:
            with pytest.raises(RecordError, match="pictures and template"):
                packing.shorten(spans, length, eos)
        else:
            whole = sum(len(ids) for ids, _, _ in spans)
            assert packing.shorten(spans, length, eos) == (expected, whole > length)
        counts["too long" if expected is None else "whole" if expected == spans else "cut"] += 1
    assert min(counts.values()) > 300 and len(counts) == 3, counts


def test_a_chat_of_20_000_turns_is_shortened_in_a_second_and_not_in_minutes():
    turn = [([8] * 4, bt.TEXT, 0), ([9] * 12, bt.TEXT, bt.GIVEN), ([7] * 14, bt.TEXT, 1)]
    spans = [([0], bt.TEXT, 0), *[*turn, ([1], bt.TEXT, 1)] * 10_000]
    begin = time.process_time()
    shortened, _ = packing.shorten(spans, 4096, 1)
    assert sum(len(ids) for ids, _, _ in shortened) == 1 + 132 * 31
    assert time.process_time() - begin < 10
