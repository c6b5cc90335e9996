"""Records to batches: what is predicted where, packing that never mixes examples, exact ratios, exact resume."""

import collections
import json
import re

import numpy as np
import pytest
import tiny

from janus_jax import batch as bt
from janus_jax.data import catalog, generation, packing, pipeline, shapes, text, understanding
from janus_jax.data.processor import Processor, Template
from janus_jax.data.sources import SourceError
from janus_jax.model import config as model_config

MODEL = model_config.quickstart()
N, G = MODEL.understanding_encoder.tokens, MODEL.generation_encoder.tokens
ROWS = pipeline.Rows(count=4, length=200, pictures=3, images=3)
RATIO = {"understanding": 2, "text": 3, "generation": 5}
SOURCES = {
    "understanding": shapes.ShapesUnderstanding(0, 101),
    "text": shapes.ShapesText(0, 103),
    "generation": shapes.ShapesGeneration(0, 97),
}
IMAGE = {"type": "image"}


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


@pytest.fixture(scope="module")
def processor():
    tokenizer = catalog.learn_tokenizer(list(SOURCES.values()), Template(), 384, records=50)
    return Processor(tokenizer, Template(system=""), N, G)


def batches(processor, sources=SOURCES, ratio=RATIO, rows=ROWS, model=MODEL, **changes):
    return tiny.batches(sources, processor, model, rows, ratio, **changes)


def taken(iterator, count):
    return [next(iterator) for _ in range(count)]


def dialogue(*turns):
    """Messages from texts in turn; a picture opens the first one where it is a list."""
    return [{"role": ("user", "assistant")[k % 2], "content": turn} for k, turn in enumerate(turns)]


def asked(question):
    return [IMAGE, {"type": "text", "text": question}]


def learned(processor, example):
    """The tokens to be predicted, as text with the special strings, "|" between stretches."""
    flags, out = example["supervised"], []
    for k in np.flatnonzero(flags):
        out += [[]] if not k or not flags[k - 1] else []
        out[-1].append(int(example["tokens"][k]))
    return "|".join(processor.tokenizer.backend.decode(ids, skip_special_tokens=False) for ids in out)


# ---- One record to one Sequence


EOS = "<｜end▁of▁sentence｜>"


@pytest.mark.parametrize(
    "supervise, expected",
    [
        ("answers", f" red{EOS}| two{EOS}"),
        ("all", f"User: |\nwhat color?\n\nAssistant: red{EOS}User: how many?\n\nAssistant: two{EOS}"),
    ],
)
def test_understanding(processor, supervise, expected):
    record = {"messages": dialogue(asked("what color?"), "red", "how many?", "two")}
    example = understanding.encode(record, processor, supervise, 200, 1)
    assert learned(processor, example) == expected
    slots = np.flatnonzero(example["role"] == bt.PICTURE)
    t, ids = processor.tokenizer, example["tokens"]
    assert len(slots) == N and slots[-1] - slots[0] == N - 1
    assert (ids[slots] == t.placeholder).all() and not example["supervised"][slots].any()
    assert (ids[slots[0] - 1], ids[slots[-1] + 1]) == (t.begin_of_image, t.end_of_image)
    assert example["pictures"].tolist() == [0] and len(example["images"]) == 0
    assert ids[0] == t.bos and ids[-1] == t.eos and example["example"].tolist() == [1]


@pytest.mark.parametrize(
    "record, supervise, expected",
    [
        ({"text": "one two "}, "answers", f"one two {EOS}"),
        ({"text": "one two"}, "all", f"one two{EOS}"),
        ({"messages": dialogue("hi", "red")}, "answers", f" red{EOS}"),
        ({"messages": dialogue("hi", "red")}, "all", f"User: hi\n\nAssistant: red{EOS}"),
    ],
)
def test_text(processor, record, supervise, expected):
    example = text.encode(record, processor, supervise, 100)
    assert learned(processor, example) == expected
    assert example["tokens"][0] == processor.tokenizer.bos and (example["role"] == bt.TEXT).all()
    assert not len(example["pictures"]) and not len(example["images"]) and example["example"].tolist() == [2]


def test_generation(processor):
    t, rng = processor.tokenizer, np.random.default_rng(0)
    example = generation.encode({"captions": ["a circle"]}, processor, rng, 0.0, 0.0)
    prompt = [i for span in processor.drawing("a circle") for i in span[0]]
    assert example["tokens"].tolist() == [*prompt, *[t.placeholder] * G, t.end_of_image, t.eos]
    assert (example["role"] == bt.IMAGE).tolist() == [False] * len(prompt) + [True] * G + [False] * 2
    assert (example["supervised"] == (example["role"] == bt.IMAGE)).all()
    assert example["images"].tolist() == [0] and len(example["pictures"]) == 0
    row = packed(processor, {"generation": Listed({"captions": ["a circle"]})})
    (first,) = np.flatnonzero(row["image_targets"][0] == 1)[:1]
    assert row["tokens"][0, first] == t.begin_of_image and row["image_slots"][0, first + 1] == 1
    ids = row["image_targets"][0, first : first + G + 1]
    assert ids.tolist() == [*range(1, G + 1), 0]
    assert (row["text_targets"] == bt.IGNORE).all()


def test_captions_of_a_record_are_all_used(processor):
    record = {"captions": ["a circle", "a cross", "a square"]}
    rng, seen = np.random.default_rng(0), collections.Counter()
    for _ in range(300):
        seen[bytes(generation.encode(record, processor, rng, 0.0, 0.0)["tokens"])] += 1
    assert len(seen) == 3 and min(seen.values()) > 60


def test_condition_dropout_in_frequency_and_form(processor):
    t, rng, record = processor.tokenizer, np.random.default_rng(0), {"captions": ["a red circle."]}
    full = generation.encode(record, processor, rng, 0.0, 0.0)
    empty = generation.encode(record, processor, rng, 1.0, 0.0)
    boi = full["tokens"].tolist().index(t.begin_of_image)
    expected = full["tokens"].copy()
    expected[1:boi] = t.pad
    assert (empty["tokens"] == expected).all()
    assert all((empty[name] == full[name]).all() for name in ("role", "supervised", "images", "example"))
    drawn = [generation.encode(record, processor, rng, 0.1, 0.0)["tokens"] for _ in range(2000)]
    dropped = [bool((ids == expected).all()) for ids in drawn]
    assert all((ids == full["tokens"]).all() for ids, d in zip(drawn, dropped) if not d)
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.027)  # four standard errors


def test_first_sentence_in_frequency_and_form(processor):
    caption, rng = "A 3.5 m cat. It sleeps! Yes", np.random.default_rng(1)
    whole, cut = (
        generation.encode({"captions": [c]}, processor, rng, 0.0, 0.0)["tokens"].tolist()
        for c in (caption, "A 3.5 m cat.")
    )
    drawn = [
        generation.encode({"captions": [caption]}, processor, rng, 0.0, 0.25)["tokens"].tolist()
        for _ in range(2000)
    ]
    assert all(ids in (whole, cut) for ids in drawn)
    assert np.mean([ids == cut for ids in drawn]) == pytest.approx(0.25, abs=0.039)
    for text_, expected in [
        ("Why? Because.", "Why?"),
        ("no end", "no end"),
        ("一。 二", "一。"),
        (" A.\nB", "A."),
    ]:
        assert generation.first(text_) == expected


# ---- Packing


def packed(processor, sources, rows=None, **changes):
    """The first batch of sources that are read alone, one row wide."""
    ratio = {task: int(task in sources) for task in bt.TASKS}
    rows = rows or pipeline.Rows(count=1, length=120, pictures=1, images=1)
    return taken(batches(processor, sources, ratio, rows, dropout=0.0, **changes), 1)[0]


def spans_of(row, name, n):
    """Start of each run of `n` slots, in order; fails where slots do not come in whole runs of their own."""
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
        # The last token of an example predicts nothing; every other target is the next token or the next id.
        assert row["text_targets"][at[-1]] == bt.IGNORE and row["image_targets"][at[-1]] == 0
        targets, following = row["text_targets"][at[:-1]], row["tokens"][at[1:]]
        assert ((targets == bt.IGNORE) | (targets == following)).all()
        assert (row["image_targets"][at[:-1]] == row["image_slots"][at[1:]]).all()
        assert bt.TASKS[task - 1] == "generation" or not row["image_slots"][at].any()
        assert bt.TASKS[task - 1] == "understanding" or not row["picture_slots"][at].any()
        assert (targets != bt.IGNORE).any() == (bt.TASKS[task - 1] != "generation")


def test_packing_never_mixes_examples(processor):
    t, counts = processor.tokenizer, collections.Counter()
    captions = {}  # text of the prompt -> pictures that belong to it
    for i in range(len(SOURCES["generation"])):
        prompt = [k for span in processor.drawing(SOURCES["generation"][i]["captions"][0]) for k in span[0]]
        captions.setdefault(tuple(prompt), []).append(SOURCES["generation"].image(i))
    talks = {}
    for i in range(len(SOURCES["understanding"])):
        example = understanding.encode(SOURCES["understanding"][i], processor, "all", 200, 1)
        talks.setdefault(tuple(example["tokens"]), []).append(SOURCES["understanding"].image(i))
    for batch in taken(batches(processor, dropout=0.0), 40):
        expected = bt.shapes(ROWS.count, ROWS.length, ROWS.pictures, ROWS.images, MODEL)
        assert {k: (v.shape, v.dtype) for k, v in batch.items() if k != "examples"} == expected
        for b in range(ROWS.count):
            row = {name: value[b] for name, value in batch.items() if name != "examples"}
            check_row(row, t)
            _, _, _, _, codes, sizes = batch["examples"][batch["examples"][:, 0] == b].T
            segments = range(1, len(codes) + 1)
            assert row["segment_ids"].max() == len(codes)
            assert [int((row["segment_ids"] == s).sum()) for s in segments] == sizes.tolist()
            assert [int(row["tasks"][row["segment_ids"] == s][0]) for s in segments] == codes.tolist()
            for name, n, pictures, known in (
                ("picture_slots", N, row["pictures"], talks), ("image_slots", G, row["images"], captions),
            ):  # fmt: skip
                starts = spans_of(row, name, n)
                for k, start in enumerate(starts):
                    segment = row["segment_ids"][start]
                    ids = row["tokens"][row["segment_ids"] == segment]
                    key = tuple(ids) if known is talks else tuple(ids[: -G - 2])
                    assert any((pictures[k] == image).all() for image in known[key])
                assert not pictures[len(starts) :].any()
                counts[name] += len(starts)
            counts["rows of several pictures"] += len(spans_of(row, "image_slots", G)) > 1
    assert min(counts.values()) > 20 and len(counts) == 3


def test_the_kth_picture_is_that_of_the_kth_slots(processor):
    """Every record has its own picture and its own word, so a swap cannot hide behind equal captions."""
    words = [f"{a}{b}" for a in "abcdef" for b in "uvwxyz"]
    drawn = Listed(*({"captions": [w]} for w in words))
    read = Listed(*({"messages": dialogue(asked("?"), w)} for w in words))
    rows = pipeline.Rows(count=2, length=300, pictures=3, images=3)
    sources, ratio = {"understanding": read, "generation": drawn}, dict(understanding=1, text=0, generation=1)
    for batch in taken(batches(processor, sources, ratio, rows, dropout=0.0), 30):
        for b in range(rows.count):
            row = {name: value[b] for name, value in batch.items() if name != "examples"}
            for name, n, pictures in (("picture_slots", N, "pictures"), ("image_slots", G, "images")):
                found = []
                for start in spans_of(row, name, n):
                    ids = row["tokens"][row["segment_ids"] == row["segment_ids"][start]]
                    said = processor.tokenizer.decode(ids)
                    answer = (
                        said.split("Assistant:")[1] if name == "picture_slots" else said.split("User:")[1]
                    )
                    found.append(words.index(answer.split()[0]) + 40)
                assert row[pictures][: len(found), 0, 0, 0].tolist() == found


def test_targets_stop_at_the_end_of_an_example_even_where_the_next_begins_with_one():
    one = bt.sequence([([5], bt.TEXT, 1), ([6], bt.TEXT, 1)], "text")
    two = bt.sequence([([7], bt.TEXT, 1), ([8], bt.IMAGE, 1)], "generation", images=[0])
    row = packing.assemble([one, two], 5)
    assert row["text_targets"].tolist() == [6, *[bt.IGNORE] * 4]
    assert row["image_targets"].tolist() == [0, 0, 1, 0, 0]
    assert row["image_slots"].tolist() == [0, 0, 0, 1, 0] and row["tasks"].tolist() == [2, 2, 3, 3, 0]


def test_answers_only_reaches_the_batch(processor):
    record = {"messages": dialogue(asked("what color?"), "red")}
    row = packed(processor, {"understanding": Listed(record)}, supervise="answers")
    ids = row["text_targets"][0][row["text_targets"][0] != bt.IGNORE]
    one = [*processor.tokenizer.encode(" red")[0], processor.tokenizer.eos]
    assert ids.tolist() == one * (len(ids) // len(one)) and len(ids)


def test_long_text_is_cut_and_counted_and_pictures_are_not(processor):
    rows = pipeline.Rows(count=1, length=100, pictures=1, images=1)
    t = processor.tokenizer
    long = " ".join(["red circle"] * 200)
    for sources, slots, n in (
        ({"understanding": Listed({"messages": dialogue(asked(long), "red")})}, "picture_slots", N),
        ({"generation": Listed({"captions": [long]})}, "image_slots", G),
        ({"text": Listed({"text": long})}, None, 0),
    ):
        batch = packed(processor, sources, rows, supervise="answers")
        assert pipeline.count_examples(batch)["truncated"] == 1
        assert (batch["segment_ids"] == 1).all()
        assert batch["tokens"][0, 0] == t.bos
        # A document that is cut has no end; a question that is cut still has its answer.
        assert (batch["tokens"][0, -1] == t.eos) == (slots is not None)
        if slots == "picture_slots":
            assert batch["text_targets"][0][-3:-1].tolist() == [*t.encode(" red")[0], t.eos]
        if slots:
            assert len(spans_of({k: v[0] for k, v in batch.items() if k != "examples"}, slots, n)) == 1
        if slots == "image_slots":  # the prompt still ends where the first id is predicted
            assert batch["tokens"][0][batch["image_targets"][0] == 1].tolist() == [t.begin_of_image]
    short = packed(processor, {"text": Listed({"text": "red"})}, rows)
    counts = pipeline.count_examples(short)
    assert counts["truncated"] == 0 and counts["text"] > 1 and "examples" not in short


def test_shortened_examples_fit_exactly_and_short_ones_are_left_alone(processor):
    record = {"messages": dialogue(asked("a " * 40), "red", "b " * 90, "blue")}
    example = understanding.encode(record, processor, "answers", 500, 1)
    size = len(example["tokens"])
    assert packing.shorten(example, size) is example
    for length in range(size - 30, size):
        cut = packing.shorten(example, length)
        assert all(len(cut[name]) == length for name in packing.PER_TOKEN)
        assert (cut["role"] == bt.PICTURE).sum() == N and cut["example"].tolist() == [1 + bt.TRUNCATED]
        assert learned(processor, cut).count(EOS) == 2


def refused(processor, sources, rows=None, **changes) -> str:
    """Why no record of the sources can be used."""
    with pytest.raises(SourceError, match="100 records in a row cannot be used") as error:
        packed(processor, sources, rows, **changes)
    return str(error.value)


def test_a_picture_that_does_not_fit_is_no_example(processor):
    rows = pipeline.Rows(count=1, length=G + 2, pictures=1, images=1)
    message = refused(processor, {"generation": Listed({"captions": ["red"]})}, rows)
    assert re.search(r"does not fit rows of 38.*raise.*rows\.length", message)


@pytest.mark.parametrize(
    "task, messages, why",
    [
        ("understanding", dialogue("what color?", "red"), "has no image part"),
        ("understanding", dialogue([IMAGE, *asked("same?")], "yes"), "has 2 pictures, a row takes 1"),
        ("text", dialogue(asked("what color?"), "red"), "has 1 image parts"),
        ("text", dialogue("what color?"), "nothing in it is to be predicted"),
    ],
)
def test_a_record_that_is_no_example(processor, task, messages, why):
    assert why in refused(processor, {task: Listed({"messages": messages})}, supervise="answers")


def test_an_interleaved_document(processor):
    t = processor.tokenizer
    parts = ["red one", None, "then blue", None, None, "end"]

    def encoded(length, pictures):
        example = understanding.encode({"document": parts}, processor, "answers", length, pictures)
        text_ = [int(i) for i, r in zip(example["tokens"], example["role"]) if r == bt.TEXT]
        return example, t.decode(text_), text_

    whole, said, ids = encoded(500, 3)
    assert said == "red onethen blueend" and whole["pictures"].tolist() == [0, 1, 2] and ids[-1] == t.eos
    assert learned(processor, whole) == f"red one|then blue|end{EOS}" and whole["example"].tolist() == [1]
    size = len(whole["tokens"])
    for length, pictures, shown, text_ in (
        (size, 2, 2, "red onethen blue"), (size - 1, 3, 3, "red onethen blueend"), (size - 3, 3, 3, "red onethen blue"),
        (N + 10, 3, 1, "red onethen blue"), (5, 3, 0, "red one"),
    ):  # fmt: skip
        cut, said, ids = encoded(length, pictures)
        assert len(cut["pictures"]) == shown and text_.startswith(said) and said, (length, said)
        assert len(cut["tokens"]) <= length and ids[-1] != t.eos
        assert (cut["role"] == bt.PICTURE).sum() == N * shown and cut["example"].tolist() == [
            1 + bt.TRUNCATED
        ]


# ---- Mix, hosts, resume


@pytest.mark.parametrize(
    "ratio",
    [(2, 3, 5), (1, 0, 1), (0, 1, 0), (7, 3, 10), (0.5, 0.5, 0.0)],
    ids=lambda r: ":".join(map(str, r)),
)
def test_the_ratio_counts_examples(processor, ratio):
    ratio = dict(zip(bt.TASKS, ratio))
    sources = {task: SOURCES[task] for task in bt.TASKS if ratio[task]}  # what is not asked for may be absent
    counts = collections.Counter()
    for batch in taken(batches(processor, sources, ratio), 60):
        counts.update(pipeline.count_examples(batch))
    total, examples = sum(ratio.values()), sum(counts[task] for task in bt.TASKS)
    assert examples > 200
    # Exact but for the examples that wait for a row of their lane.
    for task in bt.TASKS:
        waiting = 3 * ROWS.count if 0 < ratio[task] < total else 0
        assert abs(counts[task] - examples * ratio[task] / total) <= waiting


def same(a, b):
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
    assert any((a["tokens"] != b["tokens"]).any() for a, b in zip(one, other))
    words = [f"{a}{b}" for a in "ab" for b in "stuvwxyz"]
    rows = pipeline.Rows(count=len(words), length=60, pictures=0, images=1)
    source = {"generation": Listed(*({"captions": [w]} for w in words))}
    first, second = taken(
        batches(processor, source, dict(understanding=0, text=0, generation=1), rows, dropout=0.0), 2
    )
    assert {bytes(r) for r in first["tokens"]} == {
        bytes(r) for r in second["tokens"]
    }  # every record, each epoch
    assert (first["tokens"] != second["tokens"]).any()  # in another order


# ---- Precomputed ids


def with_ids(*ids):
    return {"generation": Listed(*({"captions": ["red"], "image_ids": i} for i in ids))}


def test_precomputed_ids_take_the_place_of_pixels(processor):
    codes = [np.full(G, k) + np.arange(G) for k in range(3)]
    rows = pipeline.Rows(count=2, length=150, pictures=1, images=2)
    batch = packed(processor, with_ids(*codes), rows, ids=True)
    expected = bt.shapes(2, 150, 1, 2, MODEL, precomputed=True)
    assert {k: (v.shape, v.dtype) for k, v in batch.items() if k != "examples"} == expected
    assert all(any((row == c).all() for c in codes) for row in batch["image_ids"].reshape(-1, G))
    assert len(np.unique(batch["image_ids"][..., 0])) > 1


@pytest.mark.parametrize(
    "ids",
    [[0] * (G - 1) + [128], [-1] + [0] * (G - 1), [0] * (G - 1), []],
    ids=["high", "low", "few", "none"],
)
def test_precomputed_ids_out_of_range_are_named(processor, ids):
    message = refused(processor, with_ids(ids), ids=True)
    assert "record 0: image_ids must be 36 numbers in [0, 128); got" in message


def test_tokenizer_training_pictures_are_a_function_of_seed_and_step():
    source = shapes.ShapesPictures(0, 50)
    one, two = (tiny.pictures(source, 24, 8, 1) for _ in range(2))
    assert one[5].shape == (8, 24, 24, 3) and (one[5] == two[5]).all()
    assert (one[5] != one[6]).any() and (one[5] != tiny.pictures(source, 24, 8, 2)[5]).any()
