"""Answers of words and pictures in the shapes world."""

import numpy as np
import pytest

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.messages import PICTURE
from janus_jax.data.toy import shapes
from janus_jax.data.toy.shapes_interleaved import ASKED, Request, ShapesInterleaved, random_request

LONE = {0: ("red", "circle"), 4: ("blue", "cross")}
TWO = {0: ("red", "circle"), 1: ("red", "circle")}
PAIR = shapes.Prompt("two_object", "a circle and a cross", ((None, "circle"), (None, "cross")))
SOME = shapes.Prompt("counting", "some circles", ())


@pytest.mark.parametrize(
    "request_, scene, fits, fact",
    [
        (Request("place", PAIR, "circle"), LONE, True, "the circle is at the top left."),
        (Request("place", PAIR, "cross"), LONE, True, "the cross is at the middle center."),
        (Request("color", PAIR, "cross"), LONE, True, "the cross is blue."),
        (Request("color", PAIR, "circle"), TWO, False, ""),
        (Request("count", SOME, "circle"), TWO, True, "there are two circles."),
        (Request("count", SOME, "circle"), TWO | LONE, False, "there are two circles."),
        (Request("count", SOME, "circle"), {0: ("red", "circle")}, False, ""),
        (Request("count", SOME, "circle"), None, False, ""),
        (Request("place", PAIR, "circle"), None, False, ""),
    ],
)  # fmt: skip
def test_what_fits_and_what_is_true_are_read_off_a_scene(request_, scene, fits, fact):
    assert request_.fits(scene) == fits and request_.fact(scene) == fact


@pytest.mark.parametrize("kind", ASKED)
def test_words_leave_the_fact_open(kind):
    rng = np.random.default_rng(0)
    for _ in range(50):
        request = random_request(rng, kind)
        scenes = [request.scene(rng) for _ in range(30)]
        assert all(request.fits(scene) for scene in scenes)
        facts = {request.fact(scene) for scene in scenes}
        assert "" not in facts and len(facts) > 1
        assert request.shape in request.text and request.prompt.text in request.lead


def test_a_record_is_of_its_number():
    source = open_dataset(Dataset("generation", "shapes:interleaved"), 24, 7)
    assert isinstance(source, ShapesInterleaved)
    for i in range(20):
        request, scene = source.request(i)
        user, assistant = source[i]["messages"]
        assert user.content == [request.text]
        assert assistant.content == [request.lead, PICTURE, request.fact(scene)]
        assert shapes.read(source.image(i)) == scene
    assert {source.request(i)[0].kind for i in range(30)} == set(ASKED)
