"""Pictures alone, for a task that learns from them without their text."""

import numpy as np

from janus_jax.data.images import generation_image
from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.row_stream import BAD, IN_A_ROW
from janus_jax.data.sources import SourceError


class RandomPictures:
    """Batches of pictures for the tokenizer's own training, a function of (seed, step) only; host h
    of `hosts` makes the h-th part of each.

    mixture: of generation alone, a stream a picture; its data sets are drawn at random by weight.
    What is bad gives its place to another pick, and is entered in the read statistics, which judges
    this process's own.
    """

    def __init__(
        self,
        mixture: Mixture,
        side: int,
        host: int = 0,
        hosts: int = 1,
        stats: ReadStats | None = None,
    ):
        self.mixture = mixture
        self.side = side
        self.stats = stats or ReadStats(mixture)
        self.own = range(host * mixture.streams // hosts, (host + 1) * mixture.streams // hosts)

    def __getitem__(self, step: int) -> np.ndarray:  # uint8 [batch / hosts, side, side, 3]
        reads = {}
        bad = []
        out = [self._pick(int(step), i, reads, bad) for i in self.own]
        self.stats.merge([{"news": [(reads, bad)], "counts": {}}])
        return np.stack(out)

    def _pick(self, step: int, i: int, reads: dict, bad: list) -> np.ndarray:
        rng = np.random.default_rng((self.mixture.seed, step, i))
        numbers, shares = self.mixture.shares(self.mixture.phase(step), "generation")
        for _ in range(IN_A_ROW):
            entry = numbers[int(rng.choice(len(numbers), p=shares)) if len(numbers) > 1 else 0]
            source = self.mixture.entries[entry].source
            index = int(rng.integers(len(source)))
            reads[entry] = reads.get(entry, 0) + 1
            try:
                return generation_image(source.image(index), self.side, fast=True)
            except BAD as error:
                bad.append((entry, index, error.cause, str(error)))
        raise SourceError(
            f"{IN_A_ROW} pictures in a row cannot be used, the last of them: {bad[-1][3]}"
        )
