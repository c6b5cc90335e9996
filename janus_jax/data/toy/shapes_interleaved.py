"""Answers of words and pictures in the shapes world: what is asked for is drawn, and then a fact is told
that the words left open, so that it can be read off the drawing alone."""

import dataclasses

import numpy as np

from janus_jax.data.messages import PICTURE, Turn
from janus_jax.data.toy.shapes import (
    COLUMNS,
    GRID,
    NUMBERS,
    PLURAL,
    ROWS,
    SHAPES,
    Prompt,
    draw,
    random_prompt,
    random_scene,
)
from janus_jax.data.toy.shapes_sources import World

ASKED = {  # what is asked -> the tasks of what is drawn, which leave it open
    "place": ("single_object", "two_object", "colors", "position", "color_attr"),
    "color": ("single_object", "two_object", "position"),
    "count": ("counting",),
}
MOST = 4  # things that are counted, and at least two


@dataclasses.dataclass(frozen=True)
class Request:
    """A picture to draw, and a fact of it to tell.

    kind: one of ASKED.
    prompt: what is drawn; of "count" its words leave open how many, and it has no objects.
    shape: that of which the fact is.
    """

    kind: str
    prompt: Prompt
    shape: str

    @property
    def text(self) -> str:
        asked = {
            "place": f"where is the {self.shape}?",
            "color": f"what color is the {self.shape}?",
            "count": f"how many {PLURAL[self.shape]} are there?",
        }
        return f"{self.prompt.text}. {asked[self.kind]}"

    @property
    def lead(self) -> str:
        """What is said before the drawing."""
        return f"here {'are' if self.kind == 'count' else 'is'} {self.prompt.text}:"

    def scene(self, rng: np.random.Generator) -> dict:
        """One that fits; all that the words leave open is drawn at random."""
        things = self.prompt.objects
        if self.kind == "count":
            things = ((None, self.shape),) * int(rng.integers(2, MOST + 1))
        return random_scene(rng, dataclasses.replace(self.prompt, objects=things))

    def fits(self, scene: dict | None) -> bool:
        """Exact: this was drawn, and nothing else."""
        if self.kind != "count" or scene is None:
            return self.prompt.fits(scene)
        return 2 <= len(scene) <= MOST and {shape for _, shape in scene.values()} == {self.shape}

    def fact(self, scene: dict | None) -> str:
        """The sentence that is true of a scene; empty where none is, as of two things of the shape."""
        own = [(cell, c) for cell, (c, shape) in (scene or {}).items() if shape == self.shape]
        if self.kind == "count":
            many = 2 <= len(own) <= MOST
            return f"there are {NUMBERS[len(own)]} {PLURAL[self.shape]}." if many else ""
        if len(own) != 1:
            return ""
        ((cell, colour),) = own
        row, column = divmod(cell, GRID)
        told = colour if self.kind == "color" else f"at the {ROWS[row]} {COLUMNS[column]}"
        return f"the {self.shape} is {told}."


def random_request(rng: np.random.Generator, kind: str) -> Request:
    if kind == "count":
        shape = SHAPES[rng.integers(len(SHAPES))]
        return Request(kind, Prompt("counting", f"some {PLURAL[shape]}", ()), shape)
    tasks = ASKED[kind]
    prompt = random_prompt(rng, tasks[rng.integers(len(tasks))])
    return Request(kind, prompt, prompt.objects[rng.integers(len(prompt.objects))][1])


class ShapesInterleaved(World):
    """A request of one of ASKED, and its answer: words, a picture, words."""

    scored_by = "shapes_interleaved"

    def request(self, i: int) -> tuple[Request, dict]:
        """(the request of record `i`, the scene that is drawn)."""
        rng = self.rng(i)
        request = random_request(rng, list(ASKED)[rng.integers(len(ASKED))])
        return request, request.scene(rng)

    def __getitem__(self, i: int) -> dict:
        request, scene = self.request(i)
        answer = [request.lead, PICTURE, request.fact(scene)]
        return {"messages": [Turn("user", [request.text]), Turn("assistant", answer)]}

    def image(self, i: int, k: int = 0) -> np.ndarray:
        """uint8 [24, 24, 3]."""
        return draw(self.request(i)[1])
