"""Answers held word for word against a data set's own."""

import numpy as np
import pytest

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.messages import turns
from janus_jax.data.toy import shapes_sources
from janus_jax.eval.understanding import emoji


@pytest.fixture(scope="module")
def source():
    return shapes_sources.ShapesUnderstanding(seed=3, size=50)


@pytest.fixture(scope="module")
def records(source):
    return emoji.of_source(source, np.random.default_rng(1000), 6)


def test_the_first_question_is_asked_as_the_record_has_it(source, records):
    order = np.random.default_rng(1000).permutation(50)[:6]
    assert [r.index for r in records] == [str(i) for i in order]
    for record, i in zip(records, order):
        question, answer = source[i]["messages"][:2]
        (turn,) = turns(emoji.ask(record, "emoji"))
        assert turn.content == question.content and turn.role == "user"
        assert (np.asarray(turn.pictures[0]["image"]) == source.image(i)).all()
        assert record.answer == answer.content[0] and record.question in question.content


def test_answers_count_word_for_word(records):
    answers = [r.answer for r in records[:4]] + ["something else"] * 2
    marks = [emoji.mark(r, a, "emoji") for r, a in zip(records, answers)]
    units = emoji.tally(records, marks, "emoji")
    sums = {name: sum(unit[name] for unit in units) for name in units[0]}
    assert emoji.scores(sums, "emoji") == {"exact": 4 / 6}


def test_chance_is_the_share_of_the_commonest_answer(records):
    truth = [r.answer for r in records]
    assert emoji.chance(records) == {"exact": max(truth.count(t) for t in truth) / 6}


def test_the_emoji_of_a_config_are_asked_after_those_that_are_drawn():
    pytest.importorskip("emoji")
    records = emoji.read("emoji:9?count=4&seed=2&side=16", "", print)
    rng = np.random.default_rng(1002)
    rng.permutation(9)
    assert [r.index for r in records] == [str(i) for i in rng.permutation(9)[:4]]
    assert records[0].pictures[0].size == (16, 16)
    with pytest.raises(UsageError, match="no question; give a count of 1 or more"):
        emoji.read("emoji:9?count=0", "", print)
