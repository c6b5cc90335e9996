"""Scenes that tests plant: drawings at known places, and the logits of a detector that sees them."""

import numpy as np

from janus_jax.data.toy import scenes


def drawing(x, y, thing="cat", size="small"):
    return scenes.Drawing(thing, size, x, y, scenes.SIZES[size][1], 0)


def scene(*drawings, ground="blue"):
    return scenes.Scene(ground, (0, 0, 0), drawings)


def combinations(one: scenes.Scene) -> set:
    return {(d.thing, one.ground, d.size) for d in one.drawings}


def in_words(one: scenes.Scene) -> set:
    """The ground, and the things with their sizes and the cells of 4 of 64 pixels that they are in."""
    places = {(d.thing, d.size, int(d.x * 16), int(d.y * 16)) for d in one.drawings}
    return {one.ground, *places}


def logits(due: dict, ground) -> dict:
    """What a detector gives that is right about `training.detector_loss.targets`. ground: int [B]."""
    due = {name: np.asarray(x) for name, x in due.items()}
    one_hot = lambda ids, n: 9.0 * (np.asarray(ids)[..., None] == np.arange(n))
    heat = np.clip(due["heat"], 1e-6, 1 - 1e-6)
    return {
        "centre": np.log(heat / (1 - heat)),
        "thing": one_hot(due["thing"], len(scenes.THINGS)),
        "size": one_hot(due["size"], len(scenes.SIZES)),
        "ground": one_hot(ground, len(scenes.GROUNDS)),
    }
