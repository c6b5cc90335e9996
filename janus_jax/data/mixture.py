"""Which record comes next: kinds at the stage's ratio, data sets by weight within a kind, each in its own order.

A batch has `rows.count` lanes, one a row (see lanes.py). Lane b of L reads positions b, b + L, b + 2L, ... of each data
set, so that all lanes together read 0, 1, 2, ...: `position // records` is the epoch, and each epoch has an order of
its own. Nothing here depends on hosts or workers.
"""

import dataclasses
import functools
import zlib

import numpy as np
from grain.experimental import index_shuffle

from janus_jax.data.sources import KINDS, Source, SourceError

_ENDLESS = 1 << 62
_SMALL = (
    1 << 16
)  # records whose order is kept: Grain's shuffle by index takes up to 9 ms for the smallest sets


@dataclasses.dataclass(frozen=True)
class Entry:
    """A data set of a mixture. weight: its share of its kind; steps: (first, end) of those in which it is drawn, or
    empty for all; ids: whether its records carry `image_ids`."""

    name: str
    kind: str
    source: Source
    weight: float = 1.0
    steps: tuple[int, ...] = ()
    ids: bool = False

    def active(self, step: int) -> bool:
        return active(self, step)


class Mixture:
    """What `lanes` lanes draw in a stage of `steps`. ratio: examples of each kind.

    Raises SourceError for a kind that is asked for and, in some steps, has nothing to draw from, and where only some
    of the generation sets have image_ids.
    """

    def __init__(
        self, entries: list[Entry], ratio: dict[str, float], seed: int, lanes: int, steps: int = _ENDLESS
    ):
        self.entries = [e for e in entries if ratio[e.kind] > 0 and e.weight > 0]
        self.ratio = {kind: ratio[kind] / sum(ratio.values()) for kind in KINDS}
        self.seed, self.lanes = seed, lanes
        self.changes = changes(self.entries, steps)  # phase p begins at changes[p]
        if found := gaps({e.name: e for e in self.entries}, ratio, steps):
            raise SourceError("; ".join(found))
        drawing = {e.ids for e in self.entries if e.kind == "generation"}
        if len(drawing) > 1:
            without = ", ".join(e.name for e in self.entries if e.kind == "generation" and not e.ids)
            raise SourceError(
                f"data.datasets: {without} without image_ids beside others that have them; a batch holds pictures or "
                f"ids: run janus_jax.data.tokenize_images for all of them, or for none"
            )
        self.precomputed = drawing == {True}
        self.seeds = [seed_of(seed, e.name) for e in self.entries]
        self._kind_credits = credits([self.ratio[kind] for kind in KINDS], lanes)
        self._shares = [self._of(step) for step in self.changes]

    def phase(self, step: int) -> int:
        return sum(change <= step for change in self.changes) - 1

    def _of(self, step: int) -> dict[str, tuple]:
        """kind -> (numbers of the entries drawn at a step, their shares, each lane's credits)."""
        out = {}
        for kind in KINDS:
            numbers = [i for i, e in enumerate(self.entries) if e.kind == kind and e.active(step)]
            weights = np.array([self.entries[i].weight for i in numbers])
            shares = weights / weights.sum() if len(numbers) else weights
            out[kind] = numbers, shares, credits(shares, self.lanes)
        return out

    def choose(self, lane: int, phase: int, kinds: list[int], since: list[int]) -> int:
        """The entry that a lane draws from next. kinds: how often it drew each kind so far; since: each entry in
        this phase."""
        n = sum(kinds)
        owed = [
            share * (n + 1) + credit - count
            for share, credit, count in zip(self.ratio.values(), self._kind_credits[lane], kinds)
        ]
        k = _most([x if self.ratio[kind] > 0 else -np.inf for x, kind in zip(owed, KINDS)])
        numbers, shares, credit = self._shares[phase][KINDS[k]]
        counts = [since[i] for i in numbers]
        n = sum(counts)
        owed = [s * (n + 1) + c - count for s, c, count in zip(shares, credit[lane], counts)]
        return numbers[_most(owed)]

    def index(self, entry: int, position: int) -> int:
        """The record at a position of an entry's endless order."""
        records = len(self.entries[entry].source)
        epoch, k = divmod(position, records)
        key = seed_of(self.seeds[entry], epoch)
        if records <= _SMALL:
            return int(_order(key, records)[k])
        return index_shuffle(k, max_index=records - 1, seed=key, rounds=4)

    def rng(self, entry: int, position: int, attempt: int) -> np.random.Generator:
        """The chance of one example, wherever it is drawn."""
        return np.random.default_rng((self.seeds[entry], position, attempt))

    def shares(self, phase: int, kind: str) -> tuple[list[int], np.ndarray]:
        """(numbers of the entries of a kind that are drawn in a phase, their shares of it)."""
        return self._shares[phase][kind][:2]

    def asked(self, step: int) -> dict[str, float]:
        """Data set -> share of the examples drawn at a step."""
        shares = self._shares[self.phase(step)]
        return {
            self.entries[i].name: self.ratio[kind] * float(share)
            for kind in KINDS
            for i, share in zip(*shares[kind][:2])
        }


def active(line, step: int) -> bool:
    """Is a data set (an Entry, or a line of a config) drawn at a step?"""
    first, end = line.steps or (0, _ENDLESS)
    return first <= step < end and line.weight > 0


def changes(lines, steps: int) -> list[int]:
    """The steps of a stage at which what is drawn changes, 0 first."""
    return sorted({0, *(step for line in lines for step in line.steps if step < steps)})


def gaps(lines: dict, ratio: dict[str, float], steps: int) -> list[str]:
    """The steps from which on there is nothing of a kind that the ratio asks for, in words. lines: name -> data set."""
    return [
        f"from step {step} on no data.datasets is of kind {kind!r}, of which the ratio asks {share:g}; add one, "
        f"give one a weight over 0, or widen the `steps` of one"
        for step in changes(lines.values(), steps)
        for kind, share in ratio.items()
        if share > 0 and not any(line.kind == kind and active(line, step) for line in lines.values())
    ]


def credits(shares, lanes: int) -> np.ndarray:
    """What each lane is owed before it draws: as if lane b had drawn b times already. So the lanes stand at
    different places of one even sequence, and a step's rows hold the shares together. float64 [lanes, shares]."""
    shares, counts = np.asarray(shares, np.float64), np.zeros(len(shares))
    out = np.zeros((lanes, len(shares)))
    for b in range(lanes if len(shares) else 0):
        out[b] = shares * b - counts
        counts[_most(np.where(shares > 0, shares * (b + 1) - counts, -np.inf))] += 1
    return out


def _most(owed) -> int:
    """The first of the largest; rounded, so that what is equal but for rounding is equal for every lane."""
    return int(np.argmax(np.round(owed, 9)))


@functools.lru_cache(64)
def _order(key: int, records: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(records)


def seed_of(seed: int, name) -> int:
    """A seed for a named part, in [0, 2^32): adding a data set changes no other's order."""
    return zlib.crc32(f"{seed}/{name}".encode())
