"""Rewards as a user writes them, for tests to name."""

import os
import pathlib

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


def counted(prompts, pictures):
    """`brightness`, which leaves how many pictures it was given in the folder COUNTS, a file a call."""
    folder = pathlib.Path(os.environ["COUNTS"])
    (folder / f"{os.getpid()}-{len(list(folder.iterdir()))}").write_text(str(len(pictures)))
    return brightness(prompts, pictures)
