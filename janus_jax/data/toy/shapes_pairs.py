"""Pairs of the shapes world: a sentence with a picture that fits it and one that does not, a question
with the right and a wrong answer (records of `data/pairs.py`)."""

import numpy as np

from janus_jax.data.fields import described
from janus_jax.data.pairs import HALVES, Pair
from janus_jax.data.toy.shapes import (
    ANSWERS,
    ASKED,
    COLOURS,
    QUESTIONS,
    SHAPES,
    Prompt,
    any_scene,
    ask,
    draw,
    random_scene,
)
from janus_jax.data.toy.shapes_sources import ShapesGeneration, World


def misfit(rng: np.random.Generator, prompt: Prompt, scene: dict) -> dict:
    """A scene that does not fit the prompt and nearly does: a thing of another shape or colour, one
    too many, one that is gone, or all moved."""
    while True:
        out = dict(scene)
        cells = list(out)
        cell = cells[rng.integers(len(cells))]
        colour, shape = out[cell]
        thing = list(COLOURS)[rng.integers(len(COLOURS))], SHAPES[rng.integers(len(SHAPES))]
        way = rng.integers(5)
        if way == 0:
            out[cell] = colour, thing[1]
        elif way == 1:
            out[cell] = thing[0], shape
        elif way == 2:
            out[int(rng.integers(9))] = thing
        elif way == 3 and len(out) > 1:
            del out[cell]
        else:
            places = rng.permutation(9)[: len(out)]
            out = {int(place): thing for place, thing in zip(places, out.values())}
        if not prompt.fits(out):
            return out


class ShapesPicturePairs(ShapesGeneration):
    """Picture 0 of record `i` is the chosen one, picture 1 the rejected one."""

    def __getitem__(self, i: int) -> Pair:
        return Pair(dict.fromkeys(HALVES, super().__getitem__(i)))

    def image(self, i: int, k: int = 0) -> np.ndarray:
        rng = self.rng(i)
        prompt = self.prompt(rng)
        scene = random_scene(rng, prompt)
        return draw(misfit(rng, prompt, scene) if k else scene)


class ShapesAnswerPairs(World):
    """A picture, a question that has one answer in it, the answer, and another that the question may
    have elsewhere."""

    def asked(self, i: int) -> tuple[dict, str, str, str]:
        """(the scene, the question, its answer, another)."""
        rng = self.rng(i)
        while True:
            scene = any_scene(rng)
            kind = rng.choice(QUESTIONS, p=ASKED)
            found = ask(rng, scene, kind)
            if found:
                question, answer = found
                others = [other for other in ANSWERS[kind] if other != answer]
                return scene, question, answer, others[rng.integers(len(others))]

    def __getitem__(self, i: int) -> Pair:
        _, question, *answers = self.asked(i)
        records = ({"messages": described(question, answer, 1)} for answer in answers)
        return Pair(zip(HALVES, records))

    def image(self, i: int, k: int = 0) -> np.ndarray:
        return draw(self.asked(i)[0])
