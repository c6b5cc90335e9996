"""Scores of answers of words and pictures: of right ones, of others, and by a random model."""

import numpy as np
import pytest
from PIL import Image
from support import tiny

from janus_jax.data.toy.shapes import draw
from janus_jax.eval import shapes_interleaved as scores
from janus_jax.eval.shapes_interleaved import answer_sheet, answers, marks, parts_of, requests


def true_answer(request, rng) -> list:
    scene = request.scene(rng)
    return [request.lead, Image.fromarray(draw(scene)), request.fact(scene)]


def test_right_answers_are_right_and_others_at_chance():
    rng = np.random.default_rng(0)
    some = requests(60, 3)
    right = [true_answer(request, rng) for request in some]
    found = scores.shares_of(some, right, 0)
    assert all(found[kind]["right"] == 1 for kind in ("place", "color", "count", "overall"))
    unseen = [  # told of another drawing of the same request
        [lead, picture, request.fact(request.scene(rng))]
        for request, (lead, picture, _) in zip(some, right)
    ]
    of = scores.shares_of(some, unseen, 0)
    for kind, chance in {"color": 1 / 4, "count": 1 / 3}.items():
        assert abs(of[kind]["told"] - chance) < 0.2 and of[kind]["drawn"] == 1
        assert abs(of[kind]["blind"] - chance) < 0.05
    assert of["overall"]["chance right"] < 0.2


@pytest.mark.parametrize(
    "change", [lambda a: a[:2], lambda a: a[1:], lambda a: [*a, a[1]], lambda a: ["only words"]]
)
def test_an_answer_of_another_form_is_wrong(change):
    (request, *_) = requests(1, 0)
    answer = true_answer(request, np.random.default_rng(0))
    assert all(marks(request, *parts_of(answer)).values())
    assert not any(marks(request, *parts_of(change(answer))).values())


def test_a_model_answers_and_the_sheet_shows_it(one_device):
    some = requests(1, 0)
    found = answers(tiny.make_model(), tiny.processor(), some, 5)
    assert len(found) == 3
    right = [true_answer(request, np.random.default_rng(0)) for request in some]
    assert answer_sheet(some, right, 1).size != (0, 0)
    assert answer_sheet(some, [["no"]] * 3, 1).size == answer_sheet(some, right, 1).size
