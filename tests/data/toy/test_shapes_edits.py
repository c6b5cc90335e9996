"""Edits of the shapes world: done and nothing else, each of a scene that allows it."""

import numpy as np
import pytest

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.toy import shapes
from janus_jax.data.toy.shapes_edits import EDITS, PLACES, Edit, ShapesEdits, random_edit

SCENE = {0: ("red", "circle"), 4: ("blue", "cross")}


@pytest.mark.parametrize(
    "edit, right, wrong",
    [
        (
            Edit("recolour", "", SCENE, ("green", "circle"), (0,)),
            [{0: ("green", "circle"), 4: ("blue", "cross")}],
            [SCENE, {0: ("green", "circle")}, {0: ("green", "circle"), 4: ("green", "cross")}, None],
        ),
        (
            Edit("add", "", SCENE, ("red", "square"), (3, 6)),
            [SCENE | {3: ("red", "square")}, SCENE | {6: ("red", "square")}],
            [SCENE, SCENE | {1: ("red", "square")}, SCENE | {3: ("red", "square"), 6: ("red", "square")}],
        ),
        (
            Edit("remove", "", SCENE, ("blue", "cross"), (4,)),
            [{0: ("red", "circle")}], [SCENE, {}, {4: ("blue", "cross")}],
        ),
    ],
)  # fmt: skip
def test_an_edit_is_right_where_it_alone_is_done(edit, right, wrong):
    assert all(edit.fits(after) for after in right)
    assert not any(edit.fits(after) for after in wrong)


@pytest.mark.parametrize("task", EDITS)
def test_edits_say_what_is_done_and_change_the_picture(task):
    rng = np.random.default_rng(0)
    for _ in range(200):
        edit = random_edit(rng, task)
        colour, shape = edit.thing
        assert shape in edit.text and (task == "remove" or colour in edit.text)
        same = [place for place, (_, s) in edit.before.items() if s == shape]
        if task == "add":
            assert not set(edit.cells) & set(edit.before)
            assert set(edit.cells) <= set(
                PLACES[edit.text[edit.text.index(shape) + len(shape) + 1 :]]
            )
        else:
            assert tuple(same) == edit.cells, "only one of this shape is there"
        for cell in edit.cells:
            assert edit.done(cell) and not edit.fits(edit.before) and edit.fits(edit.done(cell))


def test_a_record_is_of_its_number_and_its_pictures_are_before_and_after():
    line = Dataset("generation", "shapes:edits", source_ids=0.25, edit_dropout=(0.1, 0.0, 0.0))
    source = open_dataset(line, 24, 7)
    assert (
        isinstance(source, ShapesEdits) and source.fingerprint != ShapesEdits(line, 8).fingerprint
    )
    for i in range(30):
        edit, cell = source.edit(i)
        assert source[i] == {
            "captions": [edit.text], "sources": 1, "source_ids": 0.25, "edit_dropout": (0.1, 0.0, 0.0),
        }  # fmt: skip
        assert shapes.read(source.image(i, 0)) == edit.before
        assert shapes.read(source.image(i, 1)) == edit.done(cell)
    assert {source.edit(i)[0].task for i in range(30)} == set(EDITS)
