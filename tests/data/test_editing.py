"""Edits as rows: what is read and what is predicted where, what is blanked, and what a row refuses."""

import collections
import dataclasses
import re

import numpy as np
import pytest
from support.quick import MODEL, G, N, packed, refused, spans_of

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import editing
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.kept import only
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.data.tools.view import as_text, pieces_of
from janus_jax.data.toy.shapes_edits import ShapesEdits
from janus_jax.model import batch as bt

ROWS = Rows(1, 200, 2, 3)
RECORD = {"captions": ["make it red"], "sources": 1, "source_ids": 1.0, "edit_dropout": (0, 0, 0)}
WORDS, PICTURES, BOTH = (1, 0, 0), (0, 1, 0), (0, 0, 1)


def encoded(processor, form="chat", rows=ROWS, **changes) -> dict:
    encoder = ExampleEncoder(processor, MODEL, rows, "answers", 0.1, form=form)
    return editing.encode(RECORD | changes, encoder, np.random.default_rng(0))


def said(processor, example) -> str:
    """Its tokens as text: "~" for each run of pad, [9 x image] for slots, «predicted»."""
    flags = example["tokens"], example["role"], example["supervised"]
    text = as_text(pieces_of(*flags, processor.tokenizer))
    return (
        re.sub("(<｜▁pad▁｜>)+", "~", text).replace("begin_of_image", "b").replace("end_of_i", "e")
    )


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"source_ids": 0.0}, "User: <b>[9 x image]<emage>\nmake it red\n\nAssistant:<b>"),
        (
            {}, "User: <b>[9 x image]<emage>\nmake it red<b>[36 x image]<emage>\n\nAssistant:<b>",
        ),
        (
            {"sources": 2, "source_ids": 0.0},
            "User: <b>[9 x image]<emage>\n<b>[9 x image]<emage>\nmake it red\n\nAssistant:<b>",
        ),
        ({"form": "plain"}, "<b>[9 x image]<emage>make it red\n<b>[36 x image]<emage><b>"),
        ({"edit_dropout": WORDS}, "~<b>[9 x image]<emage>~<b>[36 x image]<emage>~<b>"),
        ({"edit_dropout": PICTURES}, "User: ~\nmake it red~\n\nAssistant:<b>"),
        ({"edit_dropout": BOTH}, "~<b>"),
    ],
)  # fmt: skip
def test_an_edit_in_words(processor, changes, text):
    example = encoded(processor, **changes)
    bos, eos = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
    assert said(processor, example) == f"{bos}{text}«[36 x image]»<emage>{eos}"


def test_what_is_blanked_keeps_its_place_and_its_pictures_are_not_read(processor):
    whole = encoded(processor)
    assert whole["understanding_images"].tolist() == [0]
    assert whole["generation_images"].tolist() == [0, 1]
    for dropout in (WORDS, PICTURES, BOTH):
        example = encoded(processor, edit_dropout=dropout)
        assert len(example["tokens"]) == len(whole["tokens"])
        assert (example["supervised"] == whole["supervised"]).all()
        for kind, slots in bt.SLOTS.items():
            read = (example["role"] == slots).sum() // {"understanding": N, "generation": G}[kind]
            assert read == len(example[f"{kind}_images"])
    assert encoded(processor, edit_dropout=BOTH)["generation_images"].tolist() == [1]


def test_how_often_ids_are_given_and_what_is_blanked(processor):
    rng, seen = np.random.default_rng(0), collections.Counter()
    record = RECORD | {"source_ids": 0.5, "edit_dropout": (0.1, 0.2, 0.3)}
    whole = {len(encoded(processor, source_ids=p)["tokens"]): p for p in (0.0, 1.0)}
    encoder = ExampleEncoder(processor, MODEL, ROWS, "answers", 0.1)
    for _ in range(3000):
        example = editing.encode(record, encoder, rng)
        pad = example["tokens"] == processor.tokenizer.pad
        pictures = not len(example["understanding_images"])
        seen["ids"] += whole[len(example["tokens"])] == 1.0
        seen[bool(pad[1]), pictures] += 1
    found = [seen[key] / 3000 for key in ("ids", (True, False), (False, True), (True, True))]
    assert np.allclose(found, [0.5, 0.1, 0.2, 0.3], atol=0.037)  # four standard errors


def test_a_packed_row_reads_what_is_there_and_predicts_what_comes_out(processor):
    source = ShapesEdits(
        Dataset("generation", "shapes:edits", source_ids=1.0, edit_dropout=(0, 0, 0))
    )
    rows = dataclasses.replace(ROWS, length=240, generation_images=4)
    batch, _ = packed(processor, {"generation": source}, rows)
    row = {name: x[0] for name, x in batch.items()}
    begins = spans_of(row, "generation_slots", G)
    assert len(begins) == 4 and len(spans_of(row, "understanding_slots", N)) == 2
    predicted = row["image_targets"][row["image_targets"] > 0]
    assert predicted.tolist() == [*range(G + 1, 2 * G + 1), *range(3 * G + 1, 4 * G + 1)]
    assert (row["text_targets"] == bt.IGNORE).all()
    before, after = row["generation_images"][0], row["generation_images"][1]
    assert (before != after).any() and (before == row["understanding_images"][0]).all()


def test_long_instructions_are_cut_in_their_middle(processor):
    example = encoded(processor, captions=["make it red " * 500])
    assert len(example["tokens"]) == ROWS.length and example["example"][0] & bt.TRUNCATED
    assert said(processor, example).endswith(
        "Assistant:<b>«[36 x image]»<emage><｜end▁of▁sentence｜>"
    )


@pytest.mark.parametrize(
    "record, rows, told",
    [
        (RECORD | {"sources": 3}, ROWS, "has 3 to edit, a row takes 2; raise the stage's rows.und"),
        (
            RECORD, dataclasses.replace(ROWS, generation_images=1),
            "has 1 to edit and 2 as ids, a row takes 1; raise the stage's rows.generation_images",
        ),
        (RECORD, dataclasses.replace(ROWS, length=100), "does not fit rows of 100"),
        (
            RECORD | {"image_ids": np.zeros(G, np.int32)}, ROWS,
            "image_ids hold one picture a record, and an edit has more; take image_ids out",
        ),
    ],
)  # fmt: skip
def test_what_a_row_does_not_take_is_refused(processor, record, rows, told):
    class Source(ShapesEdits):
        def __getitem__(self, i):
            return record

    source = Source(Dataset("generation", "shapes:edits"))
    assert told in refused(processor, {"generation": source}, rows)


def test_edits_without_ids_need_no_place_for_them(processor):
    rows = dataclasses.replace(ROWS, generation_images=1)
    encode = ExampleEncoder(processor, MODEL, rows, "answers")
    record = RECORD | {"source_ids": 0.0}
    example = encode("generation", record, np.random.default_rng(0))
    assert example["generation_images"].tolist() == [1]


def test_where_a_stage_drops_no_conditions_an_edit_keeps_its_own(processor):
    record, rng = RECORD | {"edit_dropout": BOTH}, np.random.default_rng(0)
    kept, blanked = (
        ExampleEncoder(processor, MODEL, ROWS, "answers", p)("generation", record, rng)
        for p in (0.0, 0.1)
    )
    assert len(kept["understanding_images"]) == 1 and not len(blanked["understanding_images"])


def test_kinds_are_not_taken_out_of_a_stage_of_edits(processor):
    source = ShapesEdits(Dataset("generation", "shapes:edits"))
    batch, examples = packed(
        processor, {"generation": source}, dataclasses.replace(ROWS, length=240)
    )
    for kinds in (("generation",), ("understanding", "text")):
        with pytest.raises(SourceError, match=r"options.keep is .*leave keep out, or the data set"):
            only(kinds, batch, examples)
    assert only(bt.TASKS, batch, examples) == (batch, examples)


@pytest.mark.parametrize("how", [{"drawing": "masked"}, {"image_head": "diffusion"}])
def test_a_model_that_draws_no_ids_one_by_one_learns_no_edits(processor, how):
    model = dataclasses.replace(MODEL, **how)
    record = ShapesEdits(Dataset("generation", "shapes:edits"))[0]
    with pytest.raises(RecordError, match="edits are drawn one id after the other"):
        ExampleEncoder(processor, model, ROWS, "answers")(
            "generation", record, np.random.default_rng(0)
        )
