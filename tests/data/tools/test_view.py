"""What the model sees of a record: every token once, with its id, its place and whether it is
learned."""

import dataclasses

import numpy as np
import pytest
from support import quick, tiny

from janus_jax.config.schema import Dataset, Rows
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.tools.view import as_text, look, pieces_of, visible
from janus_jax.model import batch as bt

ROWS = Rows(1, 192, 2, 2)


def encoder(supervise="all", **changes) -> ExampleEncoder:
    return ExampleEncoder(
        tiny.processor(), tiny.CONFIG, dataclasses.replace(ROWS, **changes), supervise
    )


def seen(source, kind="understanding", count=1, **changes):
    return look(Dataset(kind, "shapes:"), source, encoder(**changes), count)


def pieces(example: dict):
    parts = example["tokens"], example["role"], example["supervised"]
    return pieces_of(*parts, tiny.processor().tokenizer)


@pytest.mark.parametrize("supervise, stretches", [("all", 8), ("answers", 4)])
def test_tokens_are_text_with_image_slots_and_targets_marked(supervise, stretches):
    for task in ("understanding", "generation"):
        example = encoder(supervise)(task, tiny.sources()[task][0], np.random.default_rng(0))
        text = as_text(pieces(example))
        assert text.count("[16 x image]") == 1 and text.startswith("<｜begin▁of▁sentence｜>")
        assert text.count("«") == text.count("»") >= 1
        assert ("«[16 x image]»" in text) == (task == "generation")
        unmarked = text.replace("«", "").replace("»", "")
        assert "<begin_of_image>[16 x image]<end_of_image>" in unmarked
        if task == "understanding":
            assert text.count("«") == stretches and "«User" not in text


def test_pieces_hold_every_token_once_in_whole_characters_with_its_place_and_flag():
    said = "naïve 日本語 🚀 <begin_of_image> typed"
    source = quick.Listed({"messages": quick.dialogue(quick.asked("what?"), said)})
    (shown,), used, bad = seen(source)
    example = encoder()("understanding", source[0], np.random.default_rng(0))
    assert used == [0] and not bad
    assert [i for piece in shown.pieces for i in piece.ids] == example["tokens"].tolist()
    assert [p.at for p in shown.pieces] == np.cumsum([0, *(len(p.ids) for p in shown.pieces)])[
        :-1
    ].tolist()
    flags = [int(p.predicted) for p in shown.pieces for _ in p.ids]
    assert flags == example["supervised"].tolist()
    text = "".join(p.text for p in shown.pieces if not p.control)
    assert said in text and {"日", "本", "🚀"} <= {p.text.strip() for p in shown.pieces}
    # What a user types is text, and the id of the same name is not.
    names = [p.text for p in shown.pieces if p.control]
    assert names.count("<begin_of_image>") == 1 and names[-1] == quick.EOS


def test_a_cut_text_tells_where_and_how_much_is_left_out():
    words = " ".join(f"word{k}" for k in range(100))
    source = quick.Listed({"messages": quick.dialogue(quick.asked("what?"), words)})
    (shown,), _, _ = seen(source, length=100)
    (whole,), _, _ = seen(source, length=4000)
    count = lambda one: sum(len(p.ids) for p in one.pieces)
    at, left = shown.cut
    assert whole.cut is None and left == count(whole) - count(shown) > 100
    ids = [[i for p in one.pieces for i in p.ids] for one in (shown, whole)]
    assert ids[0][:at] == ids[1][:at] and ids[0][: at + 1] != ids[1][: at + 1]
    assert f"CUT to a row of 100: {left} tokens are left out" in shown.told


def test_pictures_are_those_that_the_encoder_gets_with_how_they_became_so():
    (shown,), _, _ = seen(tiny.sources()["generation"], "generation")
    ((pixels, how),) = shown.pictures
    record = tiny.sources()["generation"][0]
    example = encoder()("generation", record, np.random.default_rng(0))
    found = encoder().pixels("generation", tiny.sources()["generation"], 0, record, example)
    (want,) = found["generation_images"]
    assert (pixels == want).all() and how == "24 x 24, made 16 x 16"
    (slots,) = [p for p in shown.pieces if p.role == bt.GENERATION_SLOT]
    assert len(slots.ids) == 16 and slots.predicted


def test_a_book_is_shown_by_its_beginning_and_a_broken_set_by_a_hundred_records():
    book = quick.Listed({"text": "many words " * 2000})
    shown, used, _ = seen(book, "text", length=100)
    assert used == [0] and len(shown) == 3
    assert "part 3 of " in shown[2].where and shown[2].where.endswith("others are not shown)")
    shown, used, bad = seen(quick.Listed(*[{"messages": []}] * 300))
    assert (shown, used, len(bad)) == ([], [], 101) and "no more are tried" in bad[-1]


def test_what_a_terminal_would_obey_is_told_and_not_done():
    assert visible("a\x1b[31m\u202eb\n日") == "a\\x1b[31m\\u202eb\n日"
