"""The shapes world: pictures read back exactly, true answers, balanced questions, honest chance
levels."""

import collections
import re

import numpy as np
import pytest

from janus_jax.data.messages import PICTURE
from janus_jax.data.toy import shapes, shapes_sources

SOURCES = (
    shapes_sources.ShapesUnderstanding, shapes_sources.ShapesGeneration,
    shapes_sources.ShapesPictures, shapes_sources.ShapesText,
)  # fmt: skip
THING = re.compile(r"a (\w+) (\w+)")
CASES = {  # task: (prompt, a scene that fits, scenes that do not)
    "single_object": (
        ((None, "circle"),), None, {4: ("red", "circle")},
        [{}, {4: ("red", "square")}, {4: ("red", "circle"), 5: ("red", "circle")}],
    ),
    "two_object": (
        ((None, "circle"), (None, "cross")), None, {8: ("red", "circle"), 0: ("blue", "cross")},
        [{0: ("red", "circle")}, {0: ("red", "circle"), 1: ("red", "circle")},
         {0: ("red", "circle"), 1: ("red", "cross"), 2: ("red", "square")}],
    ),
    "counting": (
        ((None, "square"),) * 3, None, {0: ("red", "square"), 4: ("blue", "square"), 8: ("red", "square")},
        [{0: ("red", "square"), 4: ("red", "square")}, {i: ("red", "square") for i in range(4)},
         {0: ("red", "square"), 4: ("red", "square"), 8: ("red", "circle")}],
    ),
    "colors": (
        (("green", "cross"),), None, {2: ("green", "cross")},
        [{2: ("red", "cross")}, {2: ("green", "circle")}],
    ),
    "position": (
        ((None, "cross"), (None, "circle")), "above", {1: ("red", "cross"), 7: ("red", "circle")},
        [{7: ("red", "cross"), 1: ("red", "circle")}, {3: ("red", "cross"), 4: ("red", "circle")},
         {0: ("red", "cross"), 4: ("red", "circle")}, {1: ("red", "cross"), 7: ("red", "square")}],
    ),
    "color_attr": (
        (("red", "cross"), ("blue", "circle")), None, {5: ("red", "cross"), 1: ("blue", "circle")},
        [{5: ("blue", "cross"), 1: ("red", "circle")}, {5: ("red", "circle"), 1: ("blue", "cross")}],
    ),
}  # fmt: skip


def test_every_picture_reads_back_as_its_scene():
    scenes = [{cell: thing} for cell in range(9) for thing in shapes.THINGS[1:]] + [{}]
    scenes += [
        source.scene(source.rng(i)) for source in (s(3) for s in SOURCES[:3]) for i in range(300)
    ]
    for scene in scenes:
        picture = shapes.draw(scene)
        assert picture.shape == (24, 24, 3) and picture.dtype == np.uint8
        assert shapes.read(picture) == scene
    assert max(map(len, scenes)) == 9


def test_small_noise_is_read_and_damage_is_not():
    rng = np.random.default_rng(0)
    scene = {0: ("red", "circle"), 4: ("blue", "cross"), 5: ("yellow", "square")}
    clean = shapes.draw(scene).astype(int)
    noisy = np.clip(clean + rng.integers(-8, 9, clean.shape), 0, 255)
    assert shapes.read(noisy.astype(np.uint8)) == scene
    assert shapes.read(rng.integers(256, size=(24, 24, 3)).astype(np.uint8)) is None
    for cell in range(9):
        y, x = np.array(divmod(cell, 3)) * 8
        damaged = clean.copy()
        damaged[y : y + 8, x : x + 4] = (41, 98, 217)
        damaged[y : y + 8, x + 4 : x + 8] = (214, 48, 49)
        assert shapes.read(damaged.astype(np.uint8)) is None
    with pytest.raises(ValueError, match="24 x 24"):
        shapes.read(np.zeros((32, 32, 3), np.uint8))


def test_things_lie_apart_by_more_than_twice_the_tolerance():
    flat = shapes.SPRITES.reshape(len(shapes.THINGS), -1).astype(float)
    gaps = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    assert gaps[~np.eye(len(flat), dtype=bool)].min() >= 2 * shapes.TOLERANCE * 0.999


@pytest.mark.parametrize("task", shapes.TASKS)
def test_prompts_fit_their_own_scenes_only(task):
    objects, relation, good, bad = CASES[task]
    prompt = shapes.Prompt(task, "", objects, relation)
    assert prompt.fits(good)
    assert [scene for scene in [*bad, None] if prompt.fits(scene)] == []
    rng = np.random.default_rng(0)
    for _ in range(200):
        prompt = shapes.random_prompt(rng, task)
        assert prompt.task == task and prompt.fits(shapes.random_scene(rng, prompt))


@pytest.mark.parametrize("task", shapes.TASKS)
def test_sentences_say_what_their_objects_are(task):
    rng = np.random.default_rng(1)
    for _ in range(100):
        p = shapes.random_prompt(rng, task)
        words = p.text.replace("crosses", "cross").split()
        named = [w.removesuffix("s") if w not in shapes.SHAPES else w for w in words]
        found = [w for w in named if w in shapes.SHAPES]
        if task == "counting":
            assert shapes.NUMBERS[len(p.objects)] == words[0] and set(found) == {
                s for _, s in p.objects
            }
        else:
            assert found == [s for _, s in p.objects]
        assert [w for w in words if w in shapes.COLOURS] == [c for c, _ in p.objects if c]
        assert p.relation is None or f" {p.relation} " in p.text


def truth(scene, question):
    """The one answer to a question, from the scene alone; fails if there is not exactly one."""
    things = list(scene.values())
    colour = re.fullmatch(r"what color is the (\w+)\?", question)
    shape = re.fullmatch(r"what shape is (\w+)\?", question)
    count = re.fullmatch(r"how many (\w+) are there\?", question)
    where = re.fullmatch(r"which (row|column) is the (\w+) in\?", question)
    if colour:
        (answer,) = [c for c, s in things if s == colour[1]]
    elif shape:
        (answer,) = [s for c, s in things if c == shape[1]]
    elif count:
        single = "cross" if count[1] == "crosses" else count[1].removesuffix("s")
        answer = shapes.NUMBERS[sum(s == single for _, s in things)]
    elif where:
        (cell,) = [cell for cell, (_, s) in scene.items() if s == where[2]]
        row, column = ("top", "middle", "bottom")[cell // 3], ("left", "center", "right")[cell % 3]
        answer = row if where[1] == "row" else column
    else:
        shape = re.fullmatch(r"is there a (\w+)\?", question)[1]
        answer = "yes" if shape in [s for _, s in things] else "no"
    return answer


def place(row, column):
    """The cell of two words."""
    return 3 * ("top", "middle", "bottom").index(row) + ("left", "center", "right").index(column)


def test_evaluation_questions_are_true_and_every_answer_is_asked_equally_often():
    asked = shapes.evaluation_questions(20, seed=5)
    counts = collections.Counter((kind, answer) for kind, _, _, answer in asked)
    assert counts == {
        (kind, answer): 20 for kind, known in shapes.ANSWERS.items() for answer in known
    }
    assert [(q, truth(shapes.read(p), q)) for _, p, q, _ in asked] == [
        (q, a) for _, _, q, a in asked
    ]


def test_training_records_are_true():
    source, kinds = shapes_sources.ShapesUnderstanding(1), collections.Counter()
    orders = collections.Counter()  # of the things that are listed, by whether they are the cells'
    for i in range(300):
        scene, messages = shapes.read(source.image(i)), source[i]["messages"]
        assert messages[0].content[:2] == [PICTURE, "\n"]
        (said,) = zip(*(m.texts for m in messages), strict=True)  # one text a turn
        for question, answer in zip(said[::2], said[1::2], strict=True):
            kinds[" ".join(question.split()[:2])] += 1  # "which row" and "which column" differ
            if question == "describe the picture.":
                told = {
                    place(*where): (colour, shape)
                    for shape, colour, *where in re.findall(r"(\w+) (\w+) (\w+) (\w+)", answer)
                }
                assert told == scene and answer.count(",") == len(scene) - 1
                orders[tuple(told) == tuple(sorted(told))] += len(told) > 1
            else:
                assert truth(scene, question) == answer
    assert len(kinds) == 7 and min(kinds.values()) > 20
    assert min(orders[False], orders[True]) > 50
    drawn = shapes_sources.ShapesGeneration(1)
    for i in range(300):
        prompt = drawn.prompt(drawn.rng(i))
        assert drawn[i] == {"captions": [prompt.text]} and prompt.fits(shapes.read(drawn.image(i)))


def test_no_question_is_answered_by_the_words_before_it():
    source, exists = shapes_sources.ShapesUnderstanding(3), collections.Counter()
    singular = {plural: shape for shape, plural in shapes.PLURAL.items()}
    for i in range(2000):
        (said,) = zip(*(m.texts for m in source[i]["messages"]), strict=True)
        told = set()
        for question, answer in zip(said[::2], said[1::2], strict=True):
            words = [singular.get(w, w) for w in re.findall(r"\w+", question)]
            subject = {w for w in words if w in {*shapes.SHAPES, *shapes.COLOURS}}
            if words[0] != "which":  # a place follows from no other answer
                assert not subject & told
            if words[0] == "is" and told:
                exists[answer] += 1
            told |= subject | set(answer.split())
    assert min(exists.values()) > 100
    assert exists["yes"] == pytest.approx(exists["no"], abs=4 * sum(exists.values()) ** 0.5)


def test_sentences_about_the_world_are_true():
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    source, seen = shapes_sources.ShapesText(2), collections.Counter()
    for text in (source[i]["text"] for i in range(300)):
        where = re.fullmatch(r"if a (\w+) is (.+) a (\w+), the (\w+) is (.+) the (\w+)\.", text)
        more = re.fullmatch(r"(\w+) and one more make (\w+) (\w+)\.", text)
        if where:
            a, relation, b, first, back, second = where.groups()
            assert (first, second, back) == (b, a, opposite[relation])
        elif more:
            assert shapes.NUMBERS.index(more[1]) + 1 == shapes.NUMBERS.index(more[2])
        else:
            asked, _, answer = text.partition(": ")
            pairs = re.findall(r"the (\w+) is (\w+)", answer)
            assert [(c, s) for s, c in pairs] == THING.findall(asked)
        seen[bool(where), bool(more)] += 1
    assert len(seen) == 3


@pytest.mark.parametrize("task", shapes.TASKS)
def test_chance_is_low_and_as_the_sentences_give_it(task):
    colours, kinds = len(shapes.COLOURS), len(shapes.SHAPES)
    pairs = kinds * (kinds - 1)
    expected = {
        "single_object": 1 / kinds,
        "two_object": 2 / pairs,
        "counting": 1 / (3 * kinds),
        "colors": 1 / (colours * kinds),
        "position": 2 / (pairs * 4),  # the same sentence, or the same said from the other end
        "color_attr": 2 / (pairs * colours * (colours - 1)),
    }[task]
    chance = shapes.drawing_chance(task, seed=0)
    assert chance < 0.3
    assert chance == pytest.approx(expected, abs=4 * (expected / 4000) ** 0.5)


@pytest.mark.parametrize("source", SOURCES)
def test_records_depend_on_seed_and_index_only(source):
    one, two, other = source(7), source(7), source(8)
    shown = (
        (lambda s, i: s[i]) if hasattr(source, "__getitem__") else (lambda s, i: s.scene(s.rng(i)))
    )
    backwards = [shown(two, i) for i in reversed(range(20))][::-1]
    assert [shown(one, i) for i in range(20)] == backwards
    assert [shown(other, i) for i in range(20)] != backwards
    assert repr(one) == repr(two) != repr(other) and len(source(7, size=12)) == 12
    if hasattr(source, "scene"):
        assert (one.image(3) == two.image(np.int64(3))).all()


def test_evaluation_is_the_same_in_every_run():
    assert (
        shapes.evaluation_prompts(5, 1)
        == shapes.evaluation_prompts(5, 1)
        != shapes.evaluation_prompts(5, 2)
    )
    assert [p.task for p in shapes.evaluation_prompts(2, 1)] == [
        t for t in shapes.TASKS for _ in range(2)
    ]
    one, two = (shapes.evaluation_questions(2, 1) for _ in range(2))
    assert [(k, q, a) for k, _, q, a in one] == [(k, q, a) for k, _, q, a in two]
    assert all((p == q).all() for (_, p, *_), (_, q, *_) in zip(one, two))


def test_pictures_of_several_sizes_are_parts_that_hold_all_that_is_asked():
    source = shapes_sources.ShapesSizes()
    for i in range(60):
        picture = source.image(i)
        assert picture.shape == ((24, 24, 3), (16, 24, 3), (24, 16, 3))[i % 3]
        assert source.prompt(source.rng(i)).fits(shapes.read(picture))
