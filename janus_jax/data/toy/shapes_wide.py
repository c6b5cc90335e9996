"""The shapes world on long canvases: three small things, each of another colour, whose shapes cannot be
told once the whole canvas is as large as a picture of the quick start. For tiles (data/tiles.py)."""

import numpy as np

from janus_jax.data.messages import PICTURE, Turn, laid_out
from janus_jax.data.toy.shapes import BACKGROUND, CELL, COLOURS, SHAPES, SPRITES, THINGS
from janus_jax.data.toy.shapes_sources import World

CANVASES = ((12, 3), (3, 12), (12, 6), (6, 12))  # columns and rows, in cells of 8 pixels
COUNT = 3  # things


def wide_scene(rng: np.random.Generator) -> tuple[tuple[int, int], dict]:
    """(columns and rows, {cell: (colour, shape)}), cells in raster order."""
    columns, rows = CANVASES[rng.integers(len(CANVASES))]
    cells = rng.permutation(columns * rows)[:COUNT]
    colours = rng.permutation(list(COLOURS))[:COUNT]
    shapes = rng.integers(len(SHAPES), size=COUNT)
    things = {int(c): (str(k), SHAPES[s]) for c, k, s in zip(cells, colours, shapes)}
    return (columns, rows), things


def draw_wide(size: tuple[int, int], scene: dict) -> np.ndarray:
    """uint8 [rows * 8, columns * 8, 3]."""
    columns, rows = size
    picture = np.full((rows, CELL, columns, CELL, 3), BACKGROUND, np.uint8)
    for cell, thing in scene.items():
        picture[cell // columns, :, cell % columns] = SPRITES[THINGS.index(thing)]
    return picture.reshape(rows * CELL, columns * CELL, 3)


def wide_questions(scene: dict) -> list[tuple[str, str]]:
    """(question, answer) of each thing."""
    return [(f"what shape is {colour}?", shape) for colour, shape in scene.values()]


class ShapesWide(World):
    """A canvas and a question about each of its things."""

    scored_by = "shapes_wide"

    def image(self, i: int, k: int = 0) -> np.ndarray:
        return draw_wide(*wide_scene(self.rng(i)))

    def __getitem__(self, i: int) -> dict:
        _, scene = wide_scene(self.rng(i))
        messages = []
        for question, answer in wide_questions(scene):
            messages += [Turn("user", [question]), Turn("assistant", [answer])]
        messages[0].content = laid_out([PICTURE, *messages[0].content])
        return {"messages": messages}


def questions_of_each_shape(per_answer: int, seed: int) -> list[tuple[np.ndarray, str, str]]:
    """(picture, question, answer), every shape equally often."""
    rng = np.random.default_rng((seed, 4))
    wanted = dict.fromkeys(SHAPES, per_answer)
    out = []
    while any(wanted.values()):
        size, scene = wide_scene(rng)
        question, answer = wide_questions(scene)[0]
        if wanted[answer]:
            wanted[answer] -= 1
            out.append((draw_wide(size, scene), question, answer))
    return out
