"""The exact reward of drawings of the shapes world: what was drawn is read back and compared with its
prompt (data/toy/shapes.py)."""

import functools
import itertools

import numpy as np

from janus_jax.data.toy import shapes
from janus_jax.training.rewards import RewardError


def shapes_reward(name: str, **_):
    """The reward `shapes`."""
    return drawn_right


@functools.cache
def prompts() -> dict[str, shapes.Prompt]:
    """Every sentence of the world -> what it asks for."""
    P = shapes.Prompt
    found = []
    for a in shapes.SHAPES:
        found += [P("single_object", f"a {a}", ((None, a),))]
        found += [
            P("counting", f"{shapes.NUMBERS[n]} {shapes.PLURAL[a]}", ((None, a),) * n)
            for n in (2, 3, 4)
        ]
        found += [P("colors", f"a {c} {a}", ((c, a),)) for c in shapes.COLOURS]
    for a, b in itertools.permutations(shapes.SHAPES, 2):
        both = ((None, a), (None, b))
        found += [P("two_object", f"a {a} and a {b}", both)]
        found += [P("position", f"a {a} {r} a {b}", both, r) for r in shapes.RELATIONS]
        for c, d in itertools.permutations(shapes.COLOURS, 2):
            found += [P("color_attr", f"a {c} {a} and a {d} {b}", ((c, a), (d, b)))]
    return {p.text: p for p in found}


def prompt_of(words: str) -> shapes.Prompt:
    """What a sentence of the world asks for. Raises RewardError for another sentence."""
    if words not in prompts():
        raise RewardError(
            f"reward shapes: {words[:60]!r} is no prompt of the shapes world; draw its prompts alone "
            "(path shapes:), or take another reward"
        )
    return prompts()[words]


def drawn_right(asked: list, pictures: list) -> np.ndarray:
    """1 for a picture that shows what its prompt says and nothing else, 0 for another: float32 [n]."""
    scenes = [shapes.read(np.asarray(picture)) for picture in pictures]
    return np.array([prompt_of(a.words).fits(s) for a, s in zip(asked, scenes)], np.float32)
