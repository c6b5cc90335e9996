"""A world of pictures with meaning: scenes of one to four OpenMoji drawings on a coloured ground.

The drawings lie at free places, in two sizes, a little turned, so that no patch of a picture is a
word. Some combinations of thing, ground and size are held out: no scene that is trained on has
them, and every scene of the test is made of them. Everything is a function of a NumPy generator:
there is no data set to store. The drawings need the extra "emoji", see openmoji.py.
"""

import dataclasses
import functools
import hashlib

import numpy as np
from PIL import Image

from janus_jax.data.toy import openmoji

# Word -> (name in the emoji package, kind, plural where it is not the word and an s).
THINGS = {
    "apple": ("red apple", "fruit"), "balloon": ("balloon", ""), "banana": ("banana", "fruit"),
    "bee": ("honeybee", "animal"), "bell": ("bell", ""), "boat": ("sailboat", "vehicle"),
    "book": ("closed book", ""), "butterfly": ("butterfly", "animal", "butterflies"),
    "cactus": ("cactus", "plant", "cactuses"), "cake": ("birthday cake", ""), "car": ("automobile", "vehicle"),
    "carrot": ("carrot", "vegetable"), "cat": ("cat face", "animal"), "chair": ("chair", ""),
    "clock": ("alarm clock", ""), "crab": ("crab", "animal"), "crown": ("crown", ""), "diamond": ("gem stone", ""),
    "doughnut": ("doughnut", ""), "elephant": ("elephant", "animal"), "fish": ("fish", "animal", "fish"),
    "flower": ("sunflower", "plant"), "frog": ("frog", "animal"), "ghost": ("ghost", ""), "gift": ("wrapped gift", ""),
    "guitar": ("guitar", ""), "hammer": ("hammer", "tool"), "heart": ("red heart", ""), "house": ("house", ""),
    "key": ("key", "tool"), "kite": ("kite", ""), "lemon": ("lemon", "fruit"), "mushroom": ("mushroom", "vegetable"),
    "panda": ("panda", "animal"), "pear": ("pear", "fruit"), "penguin": ("penguin", "animal"),
    "pig": ("pig face", "animal"), "pineapple": ("pineapple", "fruit"), "plane": ("airplane", "vehicle"),
    "robot": ("robot", ""), "rocket": ("rocket", "vehicle"), "snail": ("snail", "animal"), "star": ("star", ""),
    "strawberry": ("strawberry", "fruit", "strawberries"), "tractor": ("tractor", "vehicle"),
    "tree": ("evergreen tree", "plant"), "turtle": ("turtle", "animal"), "umbrella": ("umbrella", ""),
}  # fmt: skip
GROUNDS = {
    "white": (245, 245, 245), "yellow": (250, 222, 120), "pink": (245, 176, 200), "blue": (140, 184, 240),
    "green": (155, 212, 155), "purple": (200, 168, 236),
}  # fmt: skip
# Longest sides of a drawing, as shares of the picture's.
SIZES = {"small": (17 / 64, 18 / 64, 19 / 64), "large": (25 / 64, 26 / 64, 27 / 64)}
TURNS = tuple(range(-15, 16, 5))  # degrees
TINT = 8  # levels by which a ground's colour varies
# How many of each thing a scene has.
MAKEUPS = {
    "one": ((1,),),
    "count": ((2,), (3,), (4,)),
    "two": ((1, 1),),
    "groups": ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1)),
    "many": ((1, 1, 1), (2, 1, 1), (1, 1, 1, 1)),
}
MOST = 4  # drawings of a scene
NEAREST = 0.9  # centres of drawings lie apart by this share of what keeps their squares apart
_EDGE = 0.55  # a centre lies so many of its own sides off the edge
_FINE = 80  # pixels at which a drawing is rendered, before it is turned and made small


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One drawing of a scene: the word, "small" or "large", its centre and longest side as shares of
    the picture's side, x from the left and y from the top, and its turn in degrees."""

    thing: str
    size: str
    x: float
    y: float
    side: float
    turn: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """The name of the ground, what is added to its colour, and the drawings, those of one thing
    together and in one size."""

    ground: str
    tint: tuple[int, int, int]
    drawings: tuple[Drawing, ...]

    @functools.cached_property
    def groups(self) -> dict[str, list[Drawing]]:
        """Thing -> its drawings, in the order of the scene."""
        found = {}
        for drawing in self.drawings:
            found.setdefault(drawing.thing, []).append(drawing)
        return found


def _held_out() -> dict[tuple[str, str], str]:
    """(thing, ground) -> the size in which no training has them: of each thing "small" on one ground
    and "large" on another, chosen by a hash. So each two of thing, ground and size are trained on
    together."""
    found = {}
    for thing in THINGS:
        mark = lambda ground, thing=thing: hashlib.sha256(f"{thing} on {ground}".encode()).digest()
        for ground, size in zip(sorted(GROUNDS, key=mark), SIZES):
            found[thing, ground] = size
    return found


APART = _held_out()


def is_held_out(thing: str, ground: str, size: str) -> bool:
    """Whether this combination is kept for the test."""
    return APART.get((thing, ground)) == size


def random_scene(rng: np.random.Generator, makeup: str, held_out: bool = False) -> Scene:
    """A scene of one of MAKEUPS; all of its (thing, ground, size) are held out, or none is."""
    counts = MAKEUPS[makeup][rng.integers(len(MAKEUPS[makeup]))]
    ground = list(GROUNDS)[rng.integers(len(GROUNDS))]
    able = [thing for thing in THINGS if not held_out or (thing, ground) in APART]
    things = [able[i] for i in rng.permutation(len(able))[: len(counts)]]
    sizes = [_size(rng, APART.get((thing, ground)), held_out) for thing in things]
    named = [pair for pair, n in zip(zip(things, sizes), counts) for _ in range(n)]
    sides = np.array([SIZES[size][rng.integers(3)] for _, size in named])
    places = _places(rng, sides)
    turns = rng.integers(len(TURNS), size=len(named))
    tint = tuple(map(int, rng.integers(-TINT, TINT + 1, size=3)))
    return Scene(ground, tint, tuple(
        Drawing(thing, size, float(x), float(y), float(side), TURNS[turn])
        for (thing, size), (x, y), side, turn in zip(named, places, sides, turns)
    ))  # fmt: skip


def _size(rng, apart: str | None, held_out: bool) -> str:
    """apart: the size that is held out of a thing on a ground."""
    if held_out:
        return apart
    able = [size for size in SIZES if size != apart]
    return able[rng.integers(len(able))]


def _places(rng, sides: np.ndarray) -> np.ndarray:
    """Centres [n, 2] of squares of these sides, evenly among all layouts whose squares overlap no
    more than NEAREST allows."""
    i, j = np.triu_indices(len(sides), 1)
    apart = NEAREST * (sides[i] + sides[j]) / 2
    edge = _EDGE * sides[:, None]
    while True:
        places = edge + (1 - 2 * edge) * rng.random((4 ** len(sides) // 2, len(sides), 2))
        gaps = np.abs(places[:, i] - places[:, j])  # [so many layouts at once, pairs, 2]
        good = ((gaps[..., 0] >= apart) | (gaps[..., 1] >= apart)).all(1)
        if good.any():
            return places[good.argmax()]


def draw(scene: Scene, side: int) -> np.ndarray:
    """uint8 [side, side, 3]. Raises ImportError where the extra is not installed."""
    colour = [c + t for c, t in zip(GROUNDS[scene.ground], scene.tint)]
    picture = Image.new("RGB", (side, side), tuple(min(c, 255) for c in colour))
    for d in scene.drawings:
        sprite = _sprite(d.thing, max(round(d.side * side), 1), d.turn)
        left = round(d.x * side - sprite.width / 2)
        top = round(d.y * side - sprite.height / 2)
        picture.paste(sprite, (left, top), sprite)
    return np.asarray(picture)


@functools.lru_cache(maxsize=2 * len(THINGS) * len(TURNS) * 6)  # of pictures of two sides
def _sprite(thing: str, side: int, turn: int) -> Image.Image:
    fine = _drawing(thing)
    turned = fine.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    scale = side / max(fine.size)
    size = [max(round(n * scale), 1) for n in turned.size]
    return turned.resize(size, Image.Resampling.LANCZOS)


@functools.cache
def _drawing(thing: str) -> Image.Image:
    """A drawing without the empty space around it, its longest side about _FINE pixels."""
    stem = {name: stem for stem, name in openmoji.names()}[THINGS[thing][0]]
    whole = openmoji.drawing(stem, 2 * _FINE)
    inner = whole.crop(whole.getchannel("A").getbbox())
    scale = _FINE / max(inner.size)
    return inner.resize([max(round(n * scale), 1) for n in inner.size], Image.Resampling.LANCZOS)
