"""Pictures to draw of several sizes: which size a picture takes, and what a row says of it."""

import dataclasses

import numpy as np
import pytest
from support import tiny

from janus_jax.config.schema import Rows
from janus_jax.data import sizes
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.images import generation_image
from janus_jax.data.packing import assemble
from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt

WIDE, TALL = (24, 16), (16, 24)
VQ = dataclasses.replace(tiny.CONFIG.generation_encoder, sizes=("24x16", "16x24"))
CONFIG = tiny.small(generation_encoder=VQ)
MOST = 24


class Pictures:
    """Records of one caption each, whose pictures have these sizes."""

    def __init__(self, *shapes):
        rng = np.random.default_rng(0)
        self.images = [rng.integers(0, 256, (h, w, 3), np.uint8) for w, h in shapes]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"captions": [f"a picture of number {i}"]}

    def image(self, i, k=0):
        return self.images[i]

    def where(self, i):
        return f"picture {i}"


def encoder(dropout=0.0):
    return ExampleEncoder(tiny.processor(), CONFIG, Rows(1, 96, 2, 4), "all", dropout)


def encoded(source, i, dropout=0.0):
    encode = encoder(dropout)
    record = encode.read(source, i)
    example = encode("generation", record, np.random.default_rng(i))
    return example, encode.pixels("generation", source, i, record, example)


def test_a_picture_takes_the_size_whose_aspect_is_nearest():
    found = [
        sizes.nearest(size, VQ)
        for size in ((9, 9), (90, 60), (60, 90), (500, 10), (1, 99), (11, 10))
    ]
    assert found == [0, 1, 2, 1, 2, 0]
    assert VQ.all_sizes == [(16, 16), WIDE, TALL] and VQ.most_tokens == MOST


def test_the_picture_covers_its_size_and_keeps_its_middle():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    found = generation_image(image, WIDE)
    assert found.shape == (16, 24, 3)
    assert (found[:, 5:19] > 250).all() and (found[:, :3] < 5).all() and (found[:, -3:] < 5).all()
    square = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    assert (generation_image(square, (16, 16)) == generation_image(square, 16)).all()


def test_words_say_the_size_behind_begin_of_image_and_guidance_keeps_them():
    t = tiny.processor().tokenizer
    source = Pictures((60, 40), (16, 16))
    example, pixels = encoded(source, 0)
    ids = example["tokens"].tolist()
    at = ids.index(t.begin_of_image)
    slots = np.flatnonzero(example["role"] == bt.GENERATION_SLOT)
    assert t.decode(ids[at + 1 : slots[0]]) == "24x16" and len(slots) == 24
    assert not example["supervised"][: slots[0]].any()
    assert pixels["generation_images"][0].shape == (16, 24, 3)
    assert pixels["generation_sizes"] == [2]
    blank, _ = encoded(source, 0, dropout=1.0)
    assert (blank["tokens"][1:at] == t.pad).all() and (blank["tokens"][at:] == ids[at:]).all()
    square, pixels = encoded(source, 1)
    base = tiny.encoder(Rows(1, 96, 2, 4))("generation", source[1], np.random.default_rng(1))
    assert all((square[name] == base[name]).all() for name in base)
    assert pixels["generation_sizes"] == [1]


def test_slots_index_into_pictures_of_the_most_tokens():
    source = Pictures((60, 40), (16, 16), (40, 60))
    some = [encoded(source, i)[0] for i in (1, 0, 2)]
    plain = assemble(some, 200)
    row = sizes.sized_row(plain, MOST)
    slots = row["generation_slots"]
    want = [*range(1, 17), *range(MOST + 1, 2 * MOST + 1), *range(2 * MOST + 1, 3 * MOST + 1)]
    assert slots[slots > 0].tolist() == want
    targets = row["image_targets"]
    assert targets[targets > 0].tolist() == want
    assert (np.flatnonzero(targets) == np.flatnonzero(plain["image_targets"])).all()
    assert all(
        (row[name] == plain[name]).all()
        for name in plain
        if "_slots" not in name and name != "image_targets"
    )


@pytest.mark.parametrize("size", [(24, 17), (300, 200), "24x", "16*24"])
def test_a_size_that_is_not_the_models_is_refused(size):
    with pytest.raises(ValueError, match=r"size is .*this model draws 16x16, 24x16, 16x24"):
        sizes.require(size, VQ)
    assert sizes.require("24x16", VQ) == sizes.require([24, 16], VQ) == WIDE


def test_stored_ids_are_of_squares():
    source = Pictures((60, 40))
    source.__class__ = type(
        "Stored", (Pictures,), {"__getitem__": lambda s, i: {"captions": ["a"], "image_ids": [1]}}
    )
    with pytest.raises(RecordError, match="leave image_ids out of the data set's line"):
        encoder().read(source, 0)
