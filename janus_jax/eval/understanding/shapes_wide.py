"""The shapes of small things on long canvases, every answer equally often: what only a model that sees
details can tell (see data/toy/shapes_wide.py)."""

import numpy as np
from PIL import Image

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy import shapes_wide
from janus_jax.data.toy.shapes import SHAPES
from janus_jax.eval import toy
from janus_jax.eval.benchmark import Record
from janus_jax.eval.understanding import shapes

ABOUT = "Shapes on long canvases: what only a model that sees details can tell"
HEADLINE = "overall"
PROTOCOLS = ("shapes_wide",)
MAX_NEW_TOKENS = shapes.MAX_NEW_TOKENS
ask, mark, tally, scores, chance = (
    shapes.ask, shapes.mark, shapes.tally, shapes.scores, shapes.chance,
)  # fmt: skip


def read(path: str, images: str, say) -> list[Record]:
    """ "shapes_wide:50?seed=1000": 50 questions of each of the 4 answers, drawn by the seed; these
    numbers are what "shapes_wide:" alone means."""
    given = toy.options(path, "shapes_wide", count=50, seed=1000)
    if not given["count"]:
        raise UsageError(f"{path}: no question; give 1 or more an answer")
    rng = np.random.default_rng((given["seed"], 4))
    wanted = dict.fromkeys(SHAPES, given["count"])
    out = []
    while any(wanted.values()):
        size, scene = shapes_wide.wide_scene(rng)
        question, answer = shapes_wide.wide_questions(scene)[0]
        if wanted[answer]:
            wanted[answer] -= 1
            picture = Image.fromarray(shapes_wide.draw_wide(size, scene))
            out.append(Record(str(len(out)), question, (picture,), answer, category="shape"))
    return out
