"""What is said and asked about the scenes of scenes.py."""

import itertools
import re

import numpy as np

from janus_jax.data.toy.scenes import GROUNDS, MAKEUPS, SIZES, THINGS, Drawing, Scene, random_scene

NUMBERS = ("zero", "one", "two", "three", "four")
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
CORNERS = ("top left", "top right", "bottom left", "bottom right")
QUESTIONS = ("name", "count", "place", "relation", "exists", "ground", "size")
ANSWERS = {
    "name": tuple(THINGS), "count": NUMBERS[1:], "place": CORNERS,
    "relation": ("left", "right", "above", "below"), "exists": ("yes", "no"),
    "ground": tuple(GROUNDS), "size": tuple(SIZES),
}  # fmt: skip
_CLEAR = 1.5  # the longer of two distances is so many times the other where a relation is named
_OFF = 4 / 64  # a centre lies so far from the middle lines where its corner is named


def plural(thing: str) -> str:
    return THINGS[thing][2] if len(THINGS[thing]) > 2 else f"{thing}s"


_WORDS = {word: thing for thing in THINGS for word in (thing, plural(thing))}


def several(n: int, thing: str, size: str = "") -> str:
    """ "an apple", "a small apple", "three large apples"."""
    if n > 1:
        return " ".join(filter(None, (NUMBERS[n], size, plural(thing))))
    first = size or thing
    return " ".join(filter(None, ("an" if first[0] in "aeiou" else "a", size, thing)))


def relation(a, b, clear: float = 1.0) -> str | None:
    """How `a` lies to `b`, both with centres x and y: the direction that dominates; None where the
    other one is more than 1 / `clear` of it."""
    dx = a.x - b.x
    dy = a.y - b.y
    if max(abs(dx), abs(dy)) < clear * min(abs(dx), abs(dy)):
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def corner(d: Drawing) -> str | None:
    """The corner in which a centre lies; None near the middle lines."""
    if min(abs(d.x - 0.5), abs(d.y - 0.5)) < _OFF:
        return None
    return CORNERS[2 * (d.y > 0.5) + (d.x > 0.5)]


def clear_relation(scene: Scene) -> str | None:
    """How the first drawing of two different ones lies to the second, where that is clear."""
    if len(scene.drawings) != 2 or len(scene.groups) != 2:
        return None
    return relation(*scene.drawings, _CLEAR)


def describe(scene: Scene, sizes: bool = True, related: bool = False) -> str:
    """All of a scene: "two small apples and a large cat on a blue ground". sizes: whether they are
    named. related: whether two things are told by how they lie, where that is clear."""
    said = [
        several(len(of), thing, of[0].size if sizes else "") for thing, of in scene.groups.items()
    ]
    link = clear_relation(scene) if related else None
    if link:
        told = f"{said[0]} {link} {said[1]}"
    else:
        told = " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))
    return f"{told} on a {scene.ground} ground"


def ask(
    rng: np.random.Generator, scene: Scene, kind: str, but: frozenset[str] = frozenset()
) -> tuple[str, str] | None:
    """A question of this kind that has one answer in the scene, and the answer; None if it allows
    none.

    but: things that it may not be about, as they were named before: that would answer part of it.
    """
    if kind == "ground":
        return "what color is the ground?", scene.ground
    able = [turn for about, turn in _OF_KIND[kind](scene) if not but & about]
    if not able:
        return None
    turn = able[rng.integers(len(able))]
    if kind == "exists" and rng.random() < 0.5:
        return absent(rng, scene, but)
    return turn


def absent(
    rng: np.random.Generator, scene: Scene, but: frozenset[str] = frozenset()
) -> tuple[str, str]:
    """Whether there is a thing that is not."""
    others = [thing for thing in THINGS if thing not in scene.groups and thing not in but]
    return _exists(others[rng.integers(len(others))], "no")[1]


# Scene -> all questions of a kind, each ({the things that it tells of}, (question, answer)).


def _exists(thing: str, answer: str = "yes"):
    return {thing}, (f"is there {several(1, thing)}?", answer)


def _count(thing: str, of: list[Drawing]):
    return {thing}, (f"how many {plural(thing)} are there?", NUMBERS[len(of)])


def _size(thing: str, of: list[Drawing]):
    subject = f"is the {thing}" if len(of) == 1 else f"are the {plural(thing)}"
    return {thing}, (f"{subject} small or large?", of[0].size)


def _names(scene: Scene) -> list:
    if len(scene.drawings) == 1:
        return [({scene.drawings[0].thing}, ("what is this?", scene.drawings[0].thing))]
    corners = [corner(d) for d in scene.drawings]
    found = []
    if None not in corners:
        found = [
            ({d.thing}, (f"what is in the {c}?", d.thing))
            for d, c in zip(scene.drawings, corners)
            if corners.count(c) == 1
        ]
    link = clear_relation(scene)
    if link:
        a, b = scene.groups
        found.append(({a, b}, (f"what is {link} the {b}?", a)))
        found.append(({a, b}, (f"what is {RELATIONS[link]} the {a}?", b)))
    return found


def _alone(scene: Scene) -> list[Drawing]:
    return [of[0] for of in scene.groups.values() if len(of) == 1]


def _places(scene: Scene) -> list:
    named = [(d.thing, corner(d)) for d in _alone(scene)]
    return [({thing}, (f"where is the {thing}?", c)) for thing, c in named if c]


def _relations(scene: Scene) -> list:
    found = []
    for a, b in itertools.permutations(_alone(scene), 2):
        link = relation(a, b, _CLEAR)
        if link:
            way = link.removesuffix(" of")
            choice = "left or right of" if way in ("left", "right") else "above or below"
            question = f"is the {a.thing} {choice} the {b.thing}?"
            found.append(({a.thing, b.thing}, (question, way)))
    return found


_OF_KIND = {
    "name": _names,
    "place": _places,
    "relation": _relations,
    "exists": lambda scene: [_exists(thing) for thing in scene.groups],
    "count": lambda scene: list(itertools.starmap(_count, scene.groups.items())),
    "size": lambda scene: list(itertools.starmap(_size, scene.groups.items())),
}


def named(turn: tuple[str, str]) -> set[str]:
    """The things that a question or its answer has the word of, one or several."""
    return {_WORDS[word] for text in turn for word in re.findall("[a-z]+", text) if word in _WORDS}


def lead(rng: np.random.Generator, kind: str, held_out: bool = False):
    """A scene that allows a question of this kind, and the question: (scene, (question, answer)).
    held_out: see scenes.random_scene."""
    # Else most counts would be one.
    makeups = ("one", "count", "count", "groups", "groups") if kind == "count" else tuple(MAKEUPS)
    while True:
        scene = random_scene(rng, makeups[rng.integers(len(makeups))], held_out)
        turn = ask(rng, scene, kind)
        if turn:
            return scene, turn
