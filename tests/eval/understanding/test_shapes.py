"""Questions of the shapes' world: what is asked, and what answers score."""

import numpy as np
import pytest

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.messages import PICTURE, turns
from janus_jax.data.toy import shapes as world
from janus_jax.eval.understanding import shapes


@pytest.fixture(scope="module")
def records():
    return shapes.read("shapes:2?seed=7", "", print)


def scored(records, answers):
    marks = [shapes.mark(r, a, "shapes") for r, a in zip(records, answers)]
    units = shapes.tally(records, marks, "shapes")
    sums = {name: sum(unit.get(name, 0) for unit in units) for unit in units for name in unit}
    return shapes.scores(sums, "shapes")


def test_the_questions_are_the_world_s_by_count_and_seed(records):
    asked = world.evaluation_questions(2, 7)
    got = [(r.category, r.question, r.answer) for r in records]
    assert got == [(kind, question, answer) for kind, _, question, answer in asked]
    assert all((np.asarray(r.pictures[0]) == p).all() for r, (_, p, _, _) in zip(records, asked))
    assert len(records) == 2 * 20 and len({r.index for r in records}) == 40
    assert len(shapes.read("shapes:", "", print)) == 500


def test_a_question_is_put_as_training_puts_it(records):
    (turn,) = turns(shapes.ask(records[0], "shapes"))
    assert turn.content == [PICTURE, "\n", records[0].question] and turn.role == "user"


def test_right_answers_are_counted_by_kind(records):
    right = [r.answer for r in records]
    assert scored(records, right) == dict.fromkeys((*world.QUESTIONS, "overall"), 1.0)
    half = ["no" if r.category == "exists" else r.answer for r in records]
    got = scored(records, half)
    assert got["exists"] == 0.5 and got["overall"] == pytest.approx(5.5 / 6)
    assert scored(records, [f"{a}." for a in right])["overall"] == 0.0


def test_chance_is_one_of_the_answers(records):
    chance = shapes.chance(records)
    assert chance["row"] == 1 / 3 and chance["exists"] == 0.5 and chance["color"] == 0.25
    assert chance["overall"] == pytest.approx((0.25 * 3 + 2 / 3 + 0.5) / 6)


def test_no_question_is_refused():
    with pytest.raises(UsageError, match="shapes:0: no question; give 1 or more an answer"):
        shapes.read("shapes:0", "", print)
