"""Which prompts and questions a step of task grpo has: a function of the seed, the step and the round
alone, so that a run that goes on has those of one that was never stopped."""

import numpy as np

from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.row_stream import BAD, IN_A_ROW
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.training.rewards import Asked


class Prompts:
    """Of one stage.

    mixture: its data sets, drawn at random by weight.
    prepared: (kind, Asked) -> what the sampler takes; ValueError where it cannot be used.
    stats: hears of every read.
    """

    def __init__(self, mixture: Mixture, prepared, stats: ReadStats):
        self.mixture = mixture
        self.prepared = prepared
        self.stats = stats

    def draw(self, kind: str, step: int, round_: int, count: int) -> list[tuple]:
        """(Asked, what is prepared of it, its seed) of `count` prompts. kind: "generation" or
        "understanding"."""
        reads = {}
        bad = []
        found = [self._pick(kind, (step, round_, i), reads, bad) for i in range(count)]
        self.stats.merge([{"news": [(reads, bad)], "counts": {}}])
        return found

    def _pick(self, kind: str, place: tuple, reads: dict, bad: list) -> tuple:
        rng = np.random.default_rng((self.mixture.seed, *place, kind == "generation"))
        numbers, shares = self.mixture.shares(self.mixture.phase(place[0]), kind)
        for _ in range(IN_A_ROW):
            entry = numbers[int(rng.choice(len(numbers), p=shares))]
            source = self.mixture.entries[entry].source
            index = int(rng.integers(len(source)))
            reads[entry] = reads.get(entry, 0) + 1
            try:
                asked = asked_of(kind, source, index, rng)
                return asked, self._usable(kind, asked), int(rng.integers(2**32))
            except BAD as error:
                bad.append((entry, index, error.cause, str(error)))
        raise SourceError(
            f"{IN_A_ROW} records of {kind} in a row give no prompt, the last of them: {bad[-1][3]}"
        )

    def _usable(self, kind: str, asked: Asked):
        try:
            return self.prepared(kind, asked)
        except BAD:
            raise
        except ValueError as error:
            raise RecordError("no prompt", str(error)) from None


def asked_of(kind: str, source, index: int, rng) -> Asked:
    """What a record asks for: a caption to draw, or its first question about a picture. Raises
    RecordError, ImageError."""
    record = source[index]
    if kind == "generation":
        if "sources" in record or not record.get("captions"):
            raise RecordError("no caption", f"{source.where(index)} has no caption to draw")
        return Asked(record["captions"][int(rng.integers(len(record["captions"])))])
    turns = record.get("messages", [])
    if len(turns) < 2 or turns[0].role != "user" or turns[0].count_pictures != 1:
        raise RecordError(
            "no question", f"{source.where(index)} does not begin with a question about one picture"
        )
    answer = " ".join(turns[1].texts)
    return Asked(" ".join(turns[0].texts), answer, source.image(index, 0))
