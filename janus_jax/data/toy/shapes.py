"""The quick start's world: coloured shapes on a 3 x 3 grid, drawn, described, asked about and read
back.

A scene is a dict {cell: (colour, shape)}, cells 0..8 in raster order. The six tasks are GenEval's
(arXiv 2310.11513). Everything is a function of (seed, index): there is no data set to store.
"""

import dataclasses

import numpy as np

CELL = 8
GRID = 3
SIDE = 24
SIDES = range(CELL, SIDE + 1, CELL)  # of pictures of whole cells
COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 158, 80),
    "blue": (41, 98, 217),
    "yellow": (240, 180, 20),
}
SHAPES = ("circle", "square", "triangle", "cross")
BACKGROUND = (245, 245, 240)
PLURAL = dict(zip(SHAPES, ("circles", "squares", "triangles", "crosses")))
NUMBERS = ("zero", "one", "two", "three", "four")
RELATIONS = ("left of", "right of", "above", "below")
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
# share of each task in training: more of what is harder
TRAINED = (0.04, 0.06, 0.22, 0.04, 0.32, 0.32)
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
QUESTIONS = ("color", "shape", "count", "row", "column", "exists")
# how likely each kind is the next that is asked in training: more of what is harder
ASKED = (0.24, 0.12, 0.08, 0.22, 0.20, 0.14)


def _coverage(shape: str, fine: int = 8) -> np.ndarray:
    """float32 [CELL, CELL] in [0, 1]: how much of each pixel a shape covers (its outline is
    smoothed)."""
    y, x = (np.mgrid[: CELL * fine, : CELL * fine] + 0.5) / fine - CELL / 2
    inside = {
        "circle": x**2 + y**2 <= 3.7**2,
        "square": np.maximum(abs(x), abs(y)) <= 3.0,
        "triangle": (abs(x) <= (y + 3.5) / 7 * 4) & (abs(y) <= 3.5),
        "cross": (np.minimum(abs(x), abs(y)) <= 1) & (np.maximum(abs(x), abs(y)) <= 3.5),
    }[shape]
    return inside.reshape(CELL, fine, CELL, fine).mean((1, 3)).astype(np.float32)


def _templates():
    things = [None] + [(colour, shape) for colour in COLOURS for shape in SHAPES]
    sprites = np.full((len(things), CELL, CELL, 3), BACKGROUND, np.uint8)
    for sprite, thing in zip(sprites[1:], things[1:]):
        cover = _coverage(thing[1])[..., None]
        sprite[:] = cover * COLOURS[thing[0]] + (1 - cover) * BACKGROUND
    flat = sprites.reshape(len(things), -1).astype(np.float32)
    gaps = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    return things, sprites, flat, gaps[gaps > 0].min() / 2


THINGS, SPRITES, _FLAT, TOLERANCE = _templates()  # a cell is read only within half the smallest gap


def draw(scene: dict) -> np.ndarray:
    """uint8 [24, 24, 3]."""
    cells = np.zeros(GRID * GRID, int)
    for cell, thing in scene.items():
        cells[cell] = THINGS.index(thing)
    rows = SPRITES[cells].reshape(GRID, GRID, CELL, CELL, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(SIDE, SIDE, 3)


def read(image) -> dict | None:
    """The scene in a picture (uint8 [24, 24, 3], or of its upper left cells alone, such as [16, 24,
    3]), or None if any cell is not clearly one thing or empty."""
    image = np.asarray(image)
    if image.ndim != 3 or not {*image.shape[:2]} <= {*SIDES} or image.shape[2] != 3:
        raise ValueError(
            f"picture of shape {image.shape}: this world's pictures are {SIDE} x {SIDE} x 3"
        )
    whole = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    whole[: image.shape[0], : image.shape[1]] = image
    cells = (
        whole.reshape(GRID, CELL, GRID, CELL, 3).transpose(0, 2, 1, 3, 4).reshape(GRID * GRID, -1)
    )
    distance = np.sqrt(((cells[:, None].astype(np.float32) - _FLAT) ** 2).mean(-1))
    if (distance.min(1) > TOLERANCE).any():
        return None
    return {i: THINGS[k] for i, k in enumerate(distance.argmin(1)) if k}


def relation(a: int, b: int) -> str | None:
    """How cell `a` lies to cell `b`: the direction that dominates, None on a diagonal."""
    dy = a // GRID - b // GRID
    dx = a % GRID - b % GRID
    if abs(dx) == abs(dy):
        return None
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


PAIRS = {r: [(a, b) for a in range(9) for b in range(9) if relation(a, b) == r] for r in RELATIONS}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What is asked for: objects (colour or None, shape), and how the first lies to the second."""

    task: str
    text: str
    objects: tuple
    relation: str | None = None

    def fits(self, scene: dict | None) -> bool:
        """Exact: these objects and no others, where they should be."""
        if scene is None or len(scene) != len(self.objects):
            return False
        found = sorted(scene.items())
        for order in (found, found[::-1]) if len(found) == 2 else (found,):
            same = all(
                c in (None, got[0]) and s == got[1] for (c, s), (_, got) in zip(self.objects, order)
            )
            if same and (
                self.relation is None or self.relation == relation(order[0][0], order[1][0])
            ):
                return True
        return False


def random_prompt(rng: np.random.Generator, task: str) -> Prompt:
    """One of the world's sentences for a task, uniformly."""
    a, b = (SHAPES[i] for i in rng.permutation(len(SHAPES))[:2])
    one, two = (list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2])
    if task == "single_object":
        return Prompt(task, f"a {a}", ((None, a),))
    if task == "two_object":
        return Prompt(task, f"a {a} and a {b}", ((None, a), (None, b)))
    if task == "counting":
        n = int(rng.integers(2, 5))
        return Prompt(task, f"{NUMBERS[n]} {PLURAL[a]}", ((None, a),) * n)
    if task == "colors":
        return Prompt(task, f"a {one} {a}", ((one, a),))
    if task == "position":
        where = RELATIONS[rng.integers(4)]
        return Prompt(task, f"a {a} {where} a {b}", ((None, a), (None, b)), where)
    return Prompt(task, f"a {one} {a} and a {two} {b}", ((one, a), (two, b)))


def random_scene(rng: np.random.Generator, prompt: Prompt) -> dict:
    """A scene that fits the prompt; all it leaves open is drawn at random."""
    if prompt.relation:
        cells = PAIRS[prompt.relation][rng.integers(len(PAIRS[prompt.relation]))]
    else:
        cells = rng.permutation(9)[: len(prompt.objects)]
    free = list(COLOURS)[rng.integers(len(COLOURS))] if prompt.task == "counting" else None
    pick = [c or free or list(COLOURS)[rng.integers(len(COLOURS))] for c, _ in prompt.objects]
    return {int(cell): (c, s) for cell, c, (_, s) in zip(cells, pick, prompt.objects)}


def any_scene(rng: np.random.Generator, kinds: tuple = ("one", "each", "any")) -> dict:
    """One to four things anywhere: all of one shape, each of another, or of any shapes, these kinds
    equally often."""
    n = int(rng.integers(1, 5))
    kind = kinds[rng.integers(len(kinds))]
    one, each, any_ = [rng.integers(4)] * n, rng.permutation(4)[:n], rng.integers(4, size=n)
    picks = {"one": one, "each": each, "any": any_}[kind]
    colours = [list(COLOURS)[i] for i in rng.integers(4, size=n)]
    return {int(cell): (c, SHAPES[i]) for cell, c, i in zip(rng.permutation(9)[:n], colours, picks)}


def describe(scene: dict) -> str:
    """All things in reading order."""
    return ", ".join(f"a {colour} {shape}" for _, (colour, shape) in sorted(scene.items()))


def listed(rng: np.random.Generator, scene: dict) -> str:
    """All things, each by its shape first: what follows the word at once has to be looked up in the
    picture by it. The shapes come in a random order, things of one shape in reading order."""
    places = list(rng.permutation(SHAPES))
    things = sorted(scene.items(), key=lambda item: (places.index(item[1][1]), item[0]))
    return ", ".join(
        f"{shape} {colour} {ROWS[cell // GRID]} {COLUMNS[cell % GRID]}"
        for cell, (colour, shape) in things
    )


def ask(
    rng: np.random.Generator, scene: dict, kind: str, named: frozenset = frozenset()
) -> tuple[str, str] | None:
    """A question of this kind that has one answer in the scene, or None if it allows none.

    `named` are shapes and colours of which earlier words have told. Nothing is asked that these
    words answer already: only places are asked of them."""
    things = list(scene.values())
    shapes = [s for _, s in things]
    colours = [c for c, _ in things]
    lone = [i for i, s in enumerate(shapes) if shapes.count(s) == 1]
    if kind in ("row", "column"):
        if not lone:
            return None
        i = lone[rng.integers(len(lone))]
        row, column = divmod(list(scene)[i], GRID)
        place = ROWS[row] if kind == "row" else COLUMNS[column]
        return f"which {kind} is the {shapes[i]} in?", place
    if kind == "exists":
        able = [[s for s in SHAPES if s not in named and (s in shapes) == on] for on in (0, 1)]
        if not all(able):  # one answer alone would be the likelier one
            return None
        present = int(rng.integers(2))
        shape = able[present][rng.integers(len(able[present]))]
        return f"is there a {shape}?", "yes" if present else "no"
    if kind == "shape":
        lone = [i for i, c in enumerate(colours) if colours.count(c) == 1 and c not in named]
    elif kind == "color":
        lone = [i for i in lone if shapes[i] not in named]
    else:
        lone = [i for i, s in enumerate(shapes) if s not in named]
    if not lone:
        return None
    i = lone[rng.integers(len(lone))]
    if kind == "color":
        return f"what color is the {shapes[i]}?", colours[i]
    if kind == "shape":
        return f"what shape is {colours[i]}?", shapes[i]
    return f"how many {PLURAL[shapes[i]]} are there?", NUMBERS[shapes.count(shapes[i])]


def named(text: str) -> frozenset:
    """The shapes and colours that a question or an answer names."""
    words = text.strip("?").split()
    of = {**{s: s for s in SHAPES}, **{PLURAL[s]: s for s in SHAPES}, **{c: c for c in COLOURS}}
    return frozenset(of[w] for w in words if w in of)


ANSWERS = {
    "color": tuple(COLOURS), "shape": SHAPES, "count": NUMBERS[1:], "row": ROWS, "column": COLUMNS,
    "exists": ("yes", "no"),
}  # fmt: skip


def evaluation_prompts(per_task: int, seed: int) -> list[Prompt]:
    rng = np.random.default_rng((seed, 1))
    return [random_prompt(rng, task) for task in TASKS for _ in range(per_task)]


def evaluation_questions(per_answer: int, seed: int) -> list[tuple[str, np.ndarray, str, str]]:
    """(kind, picture, question, answer), every answer of a kind equally often."""
    rng = np.random.default_rng((seed, 2))
    out = []
    for kind, answers in ANSWERS.items():
        wanted = {answer: per_answer for answer in answers}
        while any(wanted.values()):
            scene = any_scene(rng)
            asked = ask(rng, scene, kind)
            if asked and wanted.get(asked[1], 0):
                wanted[asked[1]] -= 1
                out.append((kind, draw(scene), *asked))
    return out


def drawing_chance(task: str, seed: int, pairs: int = 4000) -> float:
    """How often a picture drawn for one prompt of a task fits another prompt of it, drawn
    independently."""
    rng = np.random.default_rng((seed, 3))
    hits = [
        random_prompt(rng, task).fits(random_scene(rng, random_prompt(rng, task)))
        for _ in range(pairs)
    ]
    return float(np.mean(hits))
