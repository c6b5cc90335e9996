"""Captions and pictures to draw: what is predicted where, and what chance does to the caption."""

import collections

import numpy as np
import pytest
from support.quick import (
    G,
    Listed,
    packed,
)

from janus_jax.data import generation
from janus_jax.model import batch as bt


def test_generation(processor):
    t, rng = processor.tokenizer, np.random.default_rng(0)
    example = generation.encode({"captions": ["a circle"]}, processor, rng, 0.0, 0.0, 200)
    prompt = [i for span in processor.drawing("a circle") for i in span[0]]
    assert example["tokens"].tolist() == [*prompt, *[t.placeholder] * G, t.end_of_image, t.eos]
    assert (example["role"] == bt.GENERATION_SLOT).tolist() == [False] * len(prompt) + [
        True
    ] * G + [False] * 2
    assert (example["supervised"] == (example["role"] == bt.GENERATION_SLOT)).all()
    assert (
        example["generation_images"].tolist() == [0] and len(example["understanding_images"]) == 0
    )
    row, _ = packed(processor, {"generation": Listed({"captions": ["a circle"]})})
    (first,) = np.flatnonzero(row["image_targets"][0] == 1)[:1]
    assert (
        row["tokens"][0, first] == t.begin_of_image and row["generation_slots"][0, first + 1] == 1
    )
    ids = row["image_targets"][0, first : first + G + 1]
    assert ids.tolist() == [*range(1, G + 1), 0]
    assert (row["text_targets"] == bt.IGNORE).all()


def test_captions_of_a_record_are_all_used(processor):
    record = {"captions": ["a circle", "a cross", "a square"]}
    rng, seen = np.random.default_rng(0), collections.Counter()
    for _ in range(300):
        seen[bytes(generation.encode(record, processor, rng, 0.0, 0.0, 200)["tokens"])] += 1
    assert len(seen) == 3 and min(seen.values()) > 60


def test_condition_dropout_in_frequency_and_form(processor):
    t, rng, record = processor.tokenizer, np.random.default_rng(0), {"captions": ["a red circle."]}
    full = generation.encode(record, processor, rng, 0.0, 0.0, 200)
    empty = generation.encode(record, processor, rng, 1.0, 0.0, 200)
    boi = full["tokens"].tolist().index(t.begin_of_image)
    expected = full["tokens"].copy()
    expected[1:boi] = t.pad
    assert (empty["tokens"] == expected).all()
    assert all(
        (empty[name] == full[name]).all()
        for name in ("role", "supervised", "generation_images", "example")
    )
    drawn = [
        generation.encode(record, processor, rng, 0.1, 0.0, 200)["tokens"] for _ in range(2000)
    ]
    dropped = [bool((ids == expected).all()) for ids in drawn]
    assert all((ids == full["tokens"]).all() for ids, d in zip(drawn, dropped) if not d)
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.027)  # four standard errors


def test_first_sentence_in_frequency_and_form(processor):
    caption, rng = "A 3.5 m cat. It sleeps! Yes", np.random.default_rng(1)
    whole, cut = (
        generation.encode({"captions": [c]}, processor, rng, 0.0, 0.0, 200)["tokens"].tolist()
        for c in (caption, "A 3.5 m cat.")
    )
    drawn = [
        generation.encode({"captions": [caption]}, processor, rng, 0.0, 0.25, 200)[
            "tokens"
        ].tolist()
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
