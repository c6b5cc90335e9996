"""Pictures to draw, masked: which ids, and what a row says of them."""

import types

import numpy as np
from support import tiny

from janus_jax.data import masked
from janus_jax.data.packing import assemble
from janus_jax.data.tools import first_row
from janus_jax.model import batch as bt

N = tiny.CONFIG.generation_encoder.tokens
T = tiny.LENGTH


def examples(seed: int):
    rng = np.random.default_rng(seed)
    drawn = [masked.mask(tiny.example("generation", i), rng) for i in range(2)]
    return [drawn[0], tiny.example("understanding", 5, 60), drawn[1]]


def test_a_share_of_a_picture_is_masked_that_is_a_cosine_of_a_uniform_number():
    rng = np.random.default_rng(0)
    example = tiny.example("generation", 0)
    slots = example["role"] == bt.GENERATION_SLOT
    found = np.array([masked.mask(example, rng)["supervised"] for _ in range(2000)])
    assert (found[:, ~slots] == 0).all() and (found[:, slots].sum(1) >= 1).all()
    shares = found[:, slots].mean(1)
    assert abs(shares.mean() - 2 / np.pi) < 0.02 and shares.max() == 1
    assert np.ptp(found[:, slots].mean(0)) < 0.06  # no place is masked more often than another


def test_a_row_reads_what_is_known_and_predicts_what_is_masked_at_its_own_place():
    some = examples(1)
    row = masked.drawn_row(assemble(some, T), tiny.CONFIG)
    role = np.concatenate([e["role"] for e in some])
    wanted = np.concatenate([e["supervised"] for e in some])
    slots = np.flatnonzero(role == bt.GENERATION_SLOT)
    assert len(slots) == 2 * N
    for number, at in enumerate(slots, 1):
        read, predicted = row["generation_slots"][at], row["image_targets"][at]
        assert (read, predicted) == ((0, number) if wanted[at] else (number, 0))
    others = np.delete(np.arange(T), slots)
    assert not row["image_targets"][others].any() and not row["generation_slots"][others].any()
    assert (bt.image_slots(row)[slots] == np.arange(1, 2 * N + 1)).all()


def test_a_token_of_a_picture_sees_the_rest_of_it_and_of_nothing_else():
    some = examples(2)
    row = masked.drawn_row(assemble(some, T), tiny.CONFIG)
    slots = bt.image_slots(row) > 0
    assert (row["ahead"][~slots] == 0).all()
    assert row["ahead"][slots].tolist() == [*range(N - 1, -1, -1)] * 2
    # A picture that is given, of which nothing is to be predicted, is read one id after the other.
    given = some[0] | {"supervised": np.zeros_like(some[0]["supervised"])}
    row = masked.drawn_row(assemble([given, *some[1:]], T), tiny.CONFIG)
    assert row["ahead"].nonzero()[0].min() > len(given["tokens"])
    assert (row["generation_slots"][: len(given["tokens"])] > 0).sum() == N


def test_a_shown_row_says_what_is_predicted_at_its_own_place():
    some = examples(3)
    row = masked.drawn_row(assemble(some, T), tiny.CONFIG)
    entry = types.SimpleNamespace(name="it", source=types.SimpleNamespace(where=str))
    segment = first_row._segment(1, row, entry, 0, tiny.processor())
    predicted = sum(len(piece.ids) for piece in segment.pieces if piece.predicted)
    assert predicted == some[0]["supervised"].sum() == segment.predicted
    slots = [p for p in segment.pieces if p.role == bt.GENERATION_SLOT]
    assert sum(len(piece.ids) for piece in slots) == N
