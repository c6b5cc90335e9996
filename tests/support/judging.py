"""Rewards as a user writes them, for tests to name."""

import numpy as np


def brightness(prompts, pictures):
    """How bright each picture is, 0 to 1."""
    return [float(np.asarray(picture, np.float32).mean()) / 255 for picture in pictures]


def brevity(prompts, answers):
    """Short answers are good ones."""
    return [1 / (1 + len(answer)) for answer in answers]


def seldom(prompts, pictures):
    """`brightness`, but no number for every second prompt."""
    names = list(dict.fromkeys(p.words for p in prompts))
    values = brightness(prompts, pictures)
    return [np.nan if names.index(p.words) % 2 else v for p, v in zip(prompts, values)]
