"""Conversations whose answers draw: records in the forms that people have, what they become as rows, and
what is refused."""

import dataclasses
import json
import re

import numpy as np
import pytest
from support.quick import MODEL, G, N, dialogue, packed, refused, spans_of

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import interleaved
from janus_jax.data.catalog import open_dataset
from janus_jax.data.editing import are_captions
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.image_pixels import ImageError
from janus_jax.data.kept import only
from janus_jax.data.messages import PICTURE, Turn
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.data.tools.view import as_text, pieces_of
from janus_jax.data.toy.shapes_interleaved import ShapesInterleaved
from janus_jax.model import batch as bt
from janus_jax.training.loss import counts

ONE, TWO = "a/1.png", "a/2.png"
ROWS = Rows(1, 200, 2, 3)
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
ANSWER = ["Here they are: ", PICTURE, " Two blue circles."]


def part(path):
    return {"type": "image", "image": path}


def chat(*contents) -> dict:
    roles = ("user", "assistant") * len(contents)
    return {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents)]}


def text(content):
    return {"type": "text", "text": content}


GIVEN = [  # (record, the assistant's content, pictures)
    (chat("Draw.", ["Here they are: ", part(ONE), " Two blue circles."]), ANSWER, [ONE]),
    (chat("Draw.", [text("Here they are: "), part(ONE), text(" Two blue circles.")]), ANSWER, [ONE]),
    (
        chat("Draw.", "Here they are: <image> Two blue circles.") | {"images": [ONE]}, ANSWER, [ONE],
    ),
    (
        {
            "conversations": [
                {"from": "human", "value": "<image>\nDraw."},
                {"from": "gpt", "value": "Here they are: <image> Two blue circles."},
            ],
            "image": [TWO, ONE],
        },
        ANSWER, [TWO, ONE],
    ),
    (chat([part(TWO), "Draw."], [part(ONE)]), [PICTURE], [TWO, ONE]),
    (chat("Draw.", [part(ONE), part(TWO)]), [PICTURE, PICTURE], [ONE, TWO]),
]  # fmt: skip


@pytest.mark.parametrize("record, content, pictures", GIVEN)
def test_an_answer_that_draws_in_the_forms_that_people_have(
    source, processor, record, content, pictures
):
    opened = source("generation", [record])
    user, assistant = opened[0]["messages"]
    (made,) = interleaved.with_drawings([assistant], processor)
    (want,) = interleaved.with_drawings([Turn("assistant", content)], processor)
    assert made.content == want.content and user.count_pictures == len(pictures) - content.count(
        PICTURE
    )
    shown = [opened.image(0, k).width for k in range(len(pictures))]
    assert shown == [{ONE: 4, TWO: 8}[name] for name in pictures]
    assert not are_captions(opened) and opened.portable(0)["image"]


def test_records_without_a_picture_among_words_are_captions(source):
    drawn = chat("Draw a cat.", [part(ONE)])
    asked = chat([part(ONE), "What is it?"], "A cat.")
    opened = source("generation", [drawn, asked])
    assert [opened[i] for i in (0, 1)] == [{"captions": ["Draw a cat."]}, {"captions": ["A cat."]}]


def test_understanding_says_where_such_records_are_learned(source):
    opened = source("understanding", [GIVEN[0][0]])
    with pytest.raises(
        RecordError, match="let an assistant give it, and read the record as kind g"
    ):
        opened[0]


def test_a_picture_that_is_missing_is_told(source):
    record = chat("Draw.", ["Here: ", {"type": "image"}, part(ONE)])
    with pytest.raises(RecordError, match="2 places for pictures, of which 1 hold one"):
        source("generation", [record])[0]
    opened = source("generation", [chat("Draw.", ["Here: ", part("gone.png")])])
    assert opened[0]["messages"]
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        opened.image(0)


def encoded(processor, *contents, form="chat", rows=ROWS, dropout=0.0, model=MODEL, learn=None):
    encode = ExampleEncoder(processor, model, rows, "answers", dropout, form=form)
    turns = dialogue(*contents)
    turns[1].learn = learn
    return encode("generation", {"messages": turns}, np.random.default_rng(0))


def said(processor, example) -> str:
    flags = example["tokens"], example["role"], example["supervised"]
    told = as_text(pieces_of(*flags, processor.tokenizer)).replace("»«", "")
    told = re.sub("(<｜▁pad▁｜>)+", "~", told).replace("begin_of_image", "b")
    return told.replace("end_of_image", "e")


@pytest.mark.parametrize(
    "contents, how, want",
    [
        (
            ("draw", ANSWER), {},
            f"User: draw\n\nAssistant:« Here they are:<b>[36 x image]»<e>«\nTwo blue circles.{EOS}»",
        ),
        (
            ("draw", ANSWER), {"form": "plain"},
            f"draw\n«Here they are:<b>[36 x image]»<e>«Two blue circles.{EOS}»",
        ),
        (
            ([PICTURE, "red"], [PICTURE], "why?", "so"), {},
            f"User: <b>[9 x image]<e>\nred\n\nAssistant:«<b>[36 x image]»<e>«{EOS}»User: why?\n\n"
            f"Assistant:« so{EOS}»",
        ),
        (
            ("draw", [PICTURE], "more", [PICTURE, PICTURE]), {"learn": False},
            f"User: draw\n\nAssistant:<b>[36 x image]<e>{EOS}User: more\n\nAssistant:«<b>[36 x image]"
            f"»<e>«\n<b>[36 x image]»<e>«{EOS}»",
        ),
        (("draw", ANSWER), {"dropout": 1.0}, "~<b>«[36 x image]»<e>"),
    ],
)  # fmt: skip
def test_an_answer_that_draws_in_words(processor, contents, how, want):
    assert said(processor, encoded(processor, *contents, **how)) == BOS + want


def test_dropout_keeps_one_picture_of_each_by_turns(processor):
    encode = ExampleEncoder(processor, MODEL, ROWS, "answers", 1.0)
    record = {"messages": dialogue([PICTURE, "go"], [PICTURE], "on", [PICTURE, "and", PICTURE])}
    rng = np.random.default_rng(0)
    found = [encode("generation", record, rng) for _ in range(60)]
    assert {tuple(e["generation_images"]) for e in found} == {(1,), (2,), (3,)}
    for e in found:
        assert not len(e["understanding_images"]) and e["supervised"].sum() == G
        assert (e["role"] == bt.GENERATION_SLOT).sum() == G


def test_long_words_are_cut_and_pictures_are_not(processor):
    example = encoded(processor, "draw " * 300, ANSWER)
    assert len(example["tokens"]) == ROWS.length and example["example"][0] & bt.TRUNCATED
    assert (example["role"] == bt.GENERATION_SLOT).sum() == G
    later = encoded(processor, "draw", ANSWER, "go on " * 300, [PICTURE])
    assert later["generation_images"].tolist() in ([0], [0, 1])


def test_a_packed_row_predicts_words_and_ids_and_counts_both(processor):
    rows = dataclasses.replace(ROWS, length=240)
    batch, _ = packed(processor, {"generation": ShapesInterleaved()}, rows)
    row = {name: x[0] for name, x in batch.items()}
    begins = spans_of(row, "generation_slots", G)
    assert len(begins) >= 2
    t = processor.tokenizer
    for begin in begins:
        assert row["text_targets"][begin - 2] == t.begin_of_image == row["tokens"][begin - 1]
        assert (np.diff(row["image_targets"][begin - 1 : begin + G - 1]) == 1).all()
        assert row["text_targets"][begin + G - 1] == bt.IGNORE, (
            "end_of_image is written, not chosen"
        )
    words = row["text_targets"] != bt.IGNORE
    found = {task: int(n) for task, n in counts(batch).items()}
    assert found == {"understanding": words.sum(), "text": 0, "generation": len(begins) * G}
    assert set(row["tasks"][words]) == {1} and {*row["tasks"]} == {0, 1, 3}


def test_users_pictures_are_read_by_the_understanding_encoder(processor):
    record = {"messages": dialogue([PICTURE, "draw it again"], ["so:", PICTURE])}

    class Source(ShapesInterleaved):
        def __getitem__(self, i):
            return record

        def image(self, i, k=0):
            return np.full((24, 24, 3), 10 + 100 * k, np.uint8)

    batch, _ = packed(processor, {"generation": Source()}, dataclasses.replace(ROWS, length=100))
    assert len(spans_of({n: x[0] for n, x in batch.items()}, "understanding_slots", N)) == 1
    assert (batch["understanding_images"][0, 0] == 10).all()
    assert (batch["generation_images"][0, 0] == 110).all()


@pytest.mark.parametrize(
    "record, rows, model, told",
    [
        (
            {"messages": dialogue("draw", [PICTURE] * 4)}, ROWS, MODEL,
            "its answers draw 4 pictures, a row takes 3; raise the stage's rows.generation_images",
        ),
        (
            {"messages": dialogue([PICTURE] * 3 + ["draw"], ANSWER)}, ROWS, MODEL,
            "has 3 pictures, a row takes 2; raise the stage's rows.understanding_images",
        ),
        (
            {"messages": dialogue("draw", ANSWER), "image_ids": np.zeros(G, np.int32)}, ROWS, MODEL,
            "image_ids hold one picture a record, and a conversation has more; take image_ids out",
        ),
        (
            {"messages": dialogue("draw", ANSWER)}, ROWS, dataclasses.replace(MODEL, drawing="masked"),
            "model.drawing is 'masked': between words square pictures are drawn, one id after the other",
        ),
        (
            {"messages": dialogue("draw", ANSWER)}, ROWS,
            dataclasses.replace(
                MODEL, generation_encoder=dataclasses.replace(MODEL.generation_encoder, sizes=("24x16",))
            ),
            r"model.generation_encoder.sizes is ('24x16',): between words square pictures",
        ),
    ],
)  # fmt: skip
def test_what_a_row_does_not_take_is_refused(processor, record, rows, model, told):
    class Source(ShapesInterleaved):
        def __getitem__(self, i):
            return record

    assert told in refused(processor, {"generation": Source()}, rows, model=model)


def test_kinds_are_not_taken_out_of_a_stage_of_such_answers(processor):
    batch, examples = packed(processor, {"generation": ShapesInterleaved()}, ROWS)
    with pytest.raises(SourceError, match="draws edits or conversations that draw"):
        only(("understanding",), batch, examples)


def test_a_line_of_json_becomes_a_row(tmp_path, root, processor):
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(json.dumps(record) for record, _, _ in GIVEN), "utf-8")
    opened = open_dataset(Dataset("generation", str(path), images=str(root)), 24, 0)
    batch, examples = packed(
        processor, {"generation": opened}, dataclasses.replace(ROWS, length=240)
    )
    assert len(examples) >= 2 and batch["generation_images"].any()
