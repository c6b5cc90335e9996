"""The sources of the world of scenes: each record a function of the seed and its number, none with
what is held out."""

import numpy as np

from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import openmoji
from janus_jax.data.toy.scenes import MAKEUPS, THINGS, Scene, draw, random_scene
from janus_jax.data.toy.scenes_words import (
    NUMBERS,
    QUESTIONS,
    RELATIONS,
    ask,
    describe,
    lead,
    named,
    plural,
    several,
)

SMALLEST = 32  # pixels of a picture
DRAWN = tuple(makeup for makeup in MAKEUPS if makeup != "many")  # what drawing is asked for


class ScenesWorld:
    """What the sources share: record `i` is drawn from (seed, i); `len` is only a nominal epoch."""

    attribution = openmoji.ATTRIBUTION

    def __init__(self, side: int = 64, seed: int = 0, size: int = 1_000_000):
        """side: pixels of a picture. Raises ImportError, and SourceError for pictures that are too
        small to tell the things apart."""
        if side < SMALLEST:
            raise SourceError(
                f"side: {side} pixels (generation_encoder.image_size) show no small thing of a "
                f"scene; give {SMALLEST} or more"
            )
        openmoji.names()  # ImportError before the first record
        self.side = side
        self.seed = seed
        self.size = size
        self.fingerprint = repr(self)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(side={self.side}, seed={self.seed}, size={self.size})"

    def where(self, i: int) -> str:
        return f"scenes:{i}"

    def rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(i)))

    def scene(self, i: int) -> Scene:
        """The scene of record `i`."""
        return self._scene(self.rng(i))

    def _scene(self, rng) -> Scene:
        return random_scene(rng, _one_of(rng, tuple(MAKEUPS)))

    def image(self, i: int, k: int = 0) -> np.ndarray:
        """uint8 [side, side, 3], the picture of record `i`, which has one."""
        return draw(self.scene(i), self.side)


class ScenesPairs(ScenesWorld):
    """A scene and two whole descriptions, with sizes and without: for encoders that learn from
    pictures and captions."""

    def __getitem__(self, i: int) -> dict:
        rng = self.rng(i)
        scene = self._scene(rng)
        related = rng.random() < 0.5
        return {"captions": [describe(scene, True, related), describe(scene, False, related)]}


class ScenesAll(ScenesPairs):
    """Scenes of which half are made of what is held out: for the detector alone, which has to read
    all of them alike."""

    def _scene(self, rng) -> Scene:
        return random_scene(rng, _one_of(rng, tuple(MAKEUPS)), held_out=rng.random() < 0.5)


class ScenesGeneration(ScenesWorld):
    """A scene of one or two kinds of things and what says all that is asked of its drawing."""

    def _scene(self, rng) -> Scene:
        return random_scene(rng, _one_of(rng, DRAWN))

    def __getitem__(self, i: int) -> dict:
        rng = self.rng(i)
        scene = self._scene(rng)
        return {"captions": [describe(scene, related=rng.random() < 0.5)]}


class ScenesUnderstanding(ScenesWorld):
    """A picture and questions, each kind first equally often, no two of one thing; half of the time
    a description at the end."""

    def _lead(self, rng):
        kind = _one_of(rng, QUESTIONS)
        return kind, *lead(rng, kind)

    def _scene(self, rng) -> Scene:
        return self._lead(rng)[1]

    def __getitem__(self, i: int) -> dict:
        rng = self.rng(i)
        first, scene, turn = self._lead(rng)
        turns = [turn]
        for kind in rng.permutation([kind for kind in QUESTIONS if kind != first]):
            other = ask(rng, scene, kind, frozenset().union(*map(named, turns)))
            turns += [other] if other else []
        if rng.random() < 0.5:  # last, or questions would be answered from its words
            turns.append(("describe the picture.", describe(scene)))
        messages = []
        for question, answer in turns:
            messages += [Turn("user", [question]), Turn("assistant", [answer])]
        messages[0].content = laid_out([PICTURE, *messages[0].content])
        return {"messages": messages}


class ScenesText(ScenesWorld):
    """True sentences about the world, without pictures."""

    def __getitem__(self, i: int) -> dict:
        rng = self.rng(i)
        a, b = (list(THINGS)[i] for i in rng.permutation(len(THINGS))[:2])
        kind = rng.integers(4)
        if kind == 0:
            way = _one_of(rng, tuple(RELATIONS))
            first, second = several(1, a), several(1, b)
            return {"text": f"if {first} is {way} {second}, the {b} is {RELATIONS[way]} the {a}."}
        if kind == 1:
            n = int(rng.integers(2, len(NUMBERS)))
            fewer = several(n - 1, a) if n > 2 else f"one {a}"
            return {"text": f"{fewer} and one more make {NUMBERS[n]} {plural(a)}."}
        if kind == 2:
            what = THINGS[a][1]
            told = several(1, what) if what else "a thing"
            return {"text": f"{several(1, a)} is {told}."}
        scene = self._scene(rng)
        thing, of = list(scene.groups.items())[rng.integers(len(scene.groups))]
        are = "is" if len(of) == 1 else "are"
        return {
            "text": f"in a picture of {describe(scene)}, the ground is {scene.ground} and there "
            f"{are} {several(len(of), thing)}."
        }


def _one_of(rng, names: tuple[str, ...]) -> str:
    return names[rng.integers(len(names))]
