"""Edits of the shapes world: a scene, what to do with it, and the scene that comes out, read back
exactly."""

import dataclasses

import numpy as np

from janus_jax.config.schema import Dataset
from janus_jax.data.toy.shapes import COLOURS, SHAPES, any_scene, draw
from janus_jax.data.toy.shapes_sources import World

EDITS = ("recolour", "add", "remove")
PLACES = {  # where a thing is added -> its cells
    "on the left": (0, 3, 6), "on the right": (2, 5, 8),
    "at the top": (0, 1, 2), "at the bottom": (6, 7, 8),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Edit:
    """What is asked for of the scene `before`: the `task`, its words, the thing (colour, shape) that it
    names, and the cells where that may stand: of what is there already the one."""

    task: str
    text: str
    before: dict
    thing: tuple[str, str]
    cells: tuple[int, ...]

    def fits(self, after: dict | None) -> bool:
        """Exact: this was done, and nothing else."""
        return after is not None and any(after == self.done(cell) for cell in self.cells)

    def done(self, cell: int) -> dict:
        """The scene with the edit done in one of its cells."""
        kept = {place: thing for place, thing in self.before.items() if place != cell}
        return kept if self.task == "remove" else kept | {cell: self.thing}


def random_edit(rng: np.random.Generator, task: str) -> Edit:
    """An edit of a random scene that allows it."""
    while True:
        before = any_scene(rng)
        shapes = [shape for _, shape in before.values()]
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        if task == "add":
            shape = SHAPES[rng.integers(len(SHAPES))]
            place = list(PLACES)[rng.integers(len(PLACES))]
            free = tuple(cell for cell in PLACES[place] if cell not in before)
            if free:
                return Edit(task, f"add a {colour} {shape} {place}", before, (colour, shape), free)
            continue
        lone = [cell for cell, (_, shape) in before.items() if shapes.count(shape) == 1]
        if not lone or (len(before) == 1 and task == "remove"):  # something is left to be seen
            continue
        cell = lone[rng.integers(len(lone))]
        own, shape = before[cell]
        if task == "remove":
            return Edit(task, f"remove the {shape}", before, (own, shape), (cell,))
        if own != colour:
            return Edit(task, f"make the {shape} {colour}", before, (colour, shape), (cell,))


class ShapesEdits(World):
    """A scene, one of EDITS of it, and what comes out."""

    scored_by = "shapes_edits"

    def __init__(self, dataset: Dataset, seed: int = 0, size: int = 1_000_000):
        """dataset: the line, whose `source_ids` and `edit_dropout` its records have."""
        self.how = {name: getattr(dataset, name) for name in ("source_ids", "edit_dropout")}
        super().__init__(seed, size)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self.how.items())
        return f"{type(self).__name__}(seed={self.seed}, size={self.size}, {told})"

    def edit(self, i: int) -> tuple[Edit, int]:
        """(the edit of record `i`, in which of its cells it is done)."""
        rng = self.rng(i)
        edit = random_edit(rng, EDITS[rng.integers(len(EDITS))])
        return edit, edit.cells[rng.integers(len(edit.cells))]

    def __getitem__(self, i: int) -> dict:
        return {"captions": [self.edit(i)[0].text], "sources": 1, **self.how}

    def image(self, i: int, k: int = 0) -> np.ndarray:
        """uint8 [24, 24, 3]: before (0) and after (1)."""
        edit, cell = self.edit(i)
        return draw(edit.done(cell) if k else edit.before)
