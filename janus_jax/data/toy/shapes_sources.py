"""The sources of the shapes world: each record a function of the seed and its number."""

import numpy as np

from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.data.toy.shapes import (
    ASKED,
    CELL,
    GRID,
    NUMBERS,
    PLURAL,
    QUESTIONS,
    RELATIONS,
    TASKS,
    THINGS,
    TRAINED,
    Prompt,
    any_scene,
    ask,
    describe,
    draw,
    listed,
    named,
    random_prompt,
    random_scene,
)


class World:
    """What the three sources share: record `i` is drawn from (seed, i); `len` is only a nominal
    epoch."""

    scored_by = "shapes"  # the module of eval/ that reads drawings of this world back

    def __init__(self, seed: int = 0, size: int = 1_000_000):
        self.seed = seed
        self.size = size
        self.fingerprint = repr(self)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed}, size={self.size})"

    def where(self, i: int) -> str:
        return f"shapes:{i}"

    def rng(self, i: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, int(i)))

    def image(self, i: int, k: int = 0) -> np.ndarray:
        """uint8 [24, 24, 3], the picture of record `i`, which has one."""
        return draw(self.scene(self.rng(i)))


class ShapesUnderstanding(World):
    """A picture, three questions at most, none that the words before it answer, and a
    description."""

    def lead(self, rng):  # the kinds in the order they are asked, and a scene that allows the first
        kinds = rng.choice(QUESTIONS, len(QUESTIONS), replace=False, p=ASKED)
        while True:
            # Most of different shapes: by these a thing can be found.
            scene = any_scene(rng, ("one", "each", "each", "any"))
            turn = ask(rng, scene, kinds[0])
            if turn:
                return scene, kinds, turn

    def scene(self, rng):
        return self.lead(rng)[0]

    def __getitem__(self, i: int) -> dict:
        rng = self.rng(i)
        scene, kinds, turn = self.lead(rng)
        turns = [turn]
        for kind in kinds[1:]:
            told = frozenset().union(*(named(words) for turn in turns for words in turn))
            turn = ask(rng, scene, kind, told)
            if turn:
                turns.append(turn)
            if len(turns) == 3:
                break
        # last: it would answer the questions
        turns = [*turns, ("describe the picture.", listed(rng, scene))]
        messages = []
        for question, answer in turns:
            messages += [Turn("user", [question]), Turn("assistant", [answer])]
        messages[0].content = laid_out([PICTURE, *messages[0].content])
        return {"messages": messages}


class ShapesGeneration(World):
    """A sentence of one of the six tasks (in the shares of TRAINED) and a picture that fits it."""

    def prompt(self, rng) -> Prompt:
        return random_prompt(rng, TASKS[np.searchsorted(np.cumsum(TRAINED), rng.random())])

    def scene(self, rng):
        return random_scene(rng, self.prompt(rng))

    def __getitem__(self, i: int) -> dict:
        return {"captions": [self.prompt(self.rng(i)).text]}


class ShapesSizes(ShapesGeneration):
    """The same where all cells, the upper two rows, or the left two columns are the picture: 24 x 24,
    24 x 16 (width, height) or 16 x 24 pixels, by turns."""

    def cells(self, i: int) -> tuple[int, int]:  # rows, columns
        return ((GRID, GRID), (GRID - 1, GRID), (GRID, GRID - 1))[i % 3]

    def image(self, i: int, k: int = 0) -> np.ndarray:
        rows, columns = self.cells(i)
        rng = self.rng(i)
        prompt = self.prompt(rng)
        while True:
            scene = random_scene(rng, prompt)
            if all(cell // GRID < rows and cell % GRID < columns for cell in scene):
                return draw(scene)[: rows * CELL, : columns * CELL]


class ShapesPictures(World):
    """What the VQ tokenizer trains on: scenes of up to nine things, so that few patches are
    empty."""

    def scene(self, rng):
        cells = rng.permutation(9)[: rng.integers(1, 10)]
        return {int(cell): THINGS[1 + rng.integers(len(THINGS) - 1)] for cell in cells}

    def __getitem__(self, i: int) -> dict:
        return {"captions": [describe(self.scene(self.rng(i)))]}


class ShapesText(World):
    """True sentences about the world, without pictures."""

    def __getitem__(self, i: int) -> dict:
        rng = self.rng(i)
        task = rng.choice(("position", "counting", "color_attr"), p=(0.3, 0.2, 0.5))
        p = random_prompt(rng, task)
        if p.task == "position":
            (_, a), (_, b) = p.objects
            back = RELATIONS[RELATIONS.index(p.relation) ^ 1]
            return {"text": f"if a {a} is {p.relation} a {b}, the {b} is {back} the {a}."}
        if p.task == "counting":
            shape = p.objects[0][1]
            n = len(p.objects)
            return {"text": f"{NUMBERS[n - 1]} and one more make {NUMBERS[n]} {PLURAL[shape]}."}
        (one, a), (two, b) = p.objects
        return {"text": f"{p.text}: the {a} is {one}, the {b} is {two}."}
