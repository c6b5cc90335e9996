"""Pictures alone, for a task that learns from them without their text."""

import concurrent.futures

import numpy as np

from janus_jax.data.images import generation_image
from janus_jax.data.mixture import Mixture
from janus_jax.data.read_stats import ReadStats
from janus_jax.data.row_stream import BAD, IN_A_ROW
from janus_jax.data.sources import SourceError

_THREADS = 16  # that read and decode pictures
SHOWN = 5  # pictures smaller than the crop that are named


class RandomPictures:
    """Batches of pictures for the tokenizer's own training, a function of (seed, step) only; host h
    of `hosts` makes the h-th part of each.

    mixture: of generation alone, a stream a picture; its data sets are drawn at random by weight.
    What is bad gives its place to another pick, and is entered in the read statistics, which judges
    this process's own. Pictures smaller than `side` are enlarged, and the first of them named.
    side: pixels a side.
    host, hosts: see above.
    stats: hears of every read.
    make: (picture, side, random numbers) -> uint8 [side, side, 3]; by default the centre is taken.
    """

    def __init__(
        self,
        mixture: Mixture,
        side: int,
        host: int = 0,
        hosts: int = 1,
        stats: ReadStats | None = None,
        make=None,
    ):
        self.mixture = mixture
        self.side = side
        self.stats = stats or ReadStats(mixture)
        self.make = make or (lambda image, side, _: generation_image(image, side, fast=True))
        self.small = set()
        # For good: a thread keeps the files that it has open.
        self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
        self.own = range(host * mixture.streams // hosts, (host + 1) * mixture.streams // hosts)

    def __getitem__(self, step: int) -> np.ndarray:  # uint8 [batch / hosts, side, side, 3]
        reads = {}
        bad = []
        picks = list(self._pool.map(lambda i: self._pick(int(step), i), self.own))
        for _, sides, tried, found in picks:
            for entry, _ in tried:
                reads[entry] = reads.get(entry, 0) + 1
            bad += found
            self._look_at_size(*tried[-1], sides)
        self.stats.merge([{"news": [(reads, bad)], "counts": {}}])
        return np.stack([picture for picture, *_ in picks])

    def _pick(self, step: int, i: int):
        """(the picture, its sides in the file, the (entry, record) that were tried, the last of which
        is its own, what was bad)."""
        rng = np.random.default_rng((self.mixture.seed, step, i))
        numbers, shares = self.mixture.shares(self.mixture.phase(step), "generation")
        tried = []
        bad = []
        for _ in range(IN_A_ROW):
            entry = numbers[int(rng.choice(len(numbers), p=shares)) if len(numbers) > 1 else 0]
            source = self.mixture.entries[entry].source
            index = int(rng.integers(len(source)))
            tried.append((entry, index))
            try:
                image = source.image(index)
                picture = self.make(image, self.side, rng)
                sides = image.shape[1::-1] if isinstance(image, np.ndarray) else image.size
                return picture, sides, tried, bad
            except BAD as error:
                bad.append((entry, index, error.cause, str(error)))
        raise SourceError(
            f"{IN_A_ROW} pictures in a row cannot be used, the last of them: {bad[-1][3]}"
        )

    def _look_at_size(self, entry: int, index: int, sides):
        if min(sides) >= self.side or len(self.small) == SHOWN:
            return
        if (entry, index) not in self.small:
            self.small.add((entry, index))
            e = self.mixture.entries[entry]
            more = "; further ones are not named" if len(self.small) == SHOWN else ""
            self.stats.say(
                f"WARNING: {e.source.where(index)} is {' x '.join(map(str, sides))} pixels, smaller "
                f"than the crop of {self.side}: it is enlarged, and the tokenizer learns its blur. "
                f"data.datasets.{e.name}.min_side={self.side} leaves such pictures out{more}"
            )
