"""Janus judges its own drawings: it is asked about what it drew, and the share of answers that agree
with the prompt is the reward.

A prompt of the shapes world is taken apart into questions of that world: which shapes there are, how
many of each, which colours they have. (Nothing is asked about places: no question of that world has
"left of" for an answer.) Of any other prompt one question is asked, whether the picture shows it.
"""

import numpy as np

from janus_jax.data.toy import shapes
from janus_jax.training import rewards_shapes

ANY = 'Does this picture show "{}"? Answer yes or no.', "yes"


def self_reward(name: str, ask, **_):
    """The reward `self`. ask: (pictures, questions) -> answers, by the weights that judge."""
    return lambda asked, pictures: reward(asked, pictures, ask)


def questions(words: str) -> list[tuple[str, str]]:
    """(question, the answer that agrees with the prompt) of a prompt."""
    prompt = rewards_shapes.prompts().get(words)
    if prompt is None:
        return [(ANY[0].format(words), ANY[1])]
    of = [shape for _, shape in prompt.objects]
    found = [
        (f"how many {shapes.PLURAL[s]} are there?", shapes.NUMBERS[of.count(s)])
        for s in dict.fromkeys(of)
    ]
    found += [(f"is there a {s}?", "yes" if s in of else "no") for s in shapes.SHAPES]
    found += [(f"what color is the {s}?", c) for c, s in prompt.objects if c]
    return found


def reward(asked: list, pictures: list, ask) -> np.ndarray:
    """The share of a picture's questions whose answer agrees with its prompt: float32 [n]."""
    each = [questions(a.words) for a in asked]
    shown = [p for p, own in zip(pictures, each) for _ in own]
    answers = iter(ask(shown, [question for own in each for question, _ in own]))
    right = [
        [next(answers).strip().lower().strip(".") == truth for _, truth in own] for own in each
    ]
    return np.array([np.mean(own) for own in right], np.float32)
