"""The source of the solids world: each record a function of the seed and its number."""

import numpy as np

from janus_jax.data.messages import Slot, Turn, laid_out
from janus_jax.data.sources import RecordError
from janus_jax.data.toy.shapes_sources import World
from janus_jax.data.toy.solids import COUNTS, NAMES, cloud

QUESTIONS = ("which", "count", "larger")
# How often a guess is right that knows all about the questions and nothing of the clouds.
CHANCE = {"which": 1 / len(NAMES), "count": 1 / len(COUNTS), "larger": 1 / 2}


class SolidsUnderstanding(World):
    """A cloud and one question: which solid it is, how many there are, which of two is larger."""

    scored_by = "solids"

    def where(self, i: int) -> str:
        return f"solids:{i}"

    def image(self, i: int, k: int = 0):
        raise RecordError("no picture", f"{self.where(i)} is a cloud, and has no picture")

    def asked(self, i: int) -> tuple[str, str, str, np.ndarray]:
        """Of record i the kind of its question, the question, its answer, and the cloud."""
        rng = self.rng(i)
        kind = QUESTIONS[rng.integers(len(QUESTIONS))]
        if kind == "which":
            name = NAMES[rng.integers(len(NAMES))]
            return kind, "which solid is this?", name, cloud(rng, [(name, 1.0)])
        if kind == "count":
            n = int(rng.integers(1, 1 + len(COUNTS)))
            solids = [(NAMES[k], rng.uniform(0.5, 0.9)) for k in rng.integers(len(NAMES), size=n)]
            return kind, "how many solids are there?", COUNTS[n - 1], cloud(rng, solids)
        large, small = (NAMES[k] for k in rng.choice(len(NAMES), 2, replace=False))
        solids = [(large, rng.uniform(0.8, 1.0)), (small, rng.uniform(0.35, 0.5))]
        a, b = (large, small) if rng.random() < 0.5 else (small, large)
        return kind, f"which is larger, the {a} or the {b}?", large, cloud(rng, solids)

    def __getitem__(self, i: int) -> dict:
        _, question, answer, points = self.asked(i)
        said = [Turn("user", laid_out([Slot("points"), question])), Turn("assistant", [answer])]
        return {"messages": said, "senses": {"points": [points]}}
