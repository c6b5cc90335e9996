"""Which record comes next: kinds at the stage's ratio, data sets by weight within a kind, each in
its own order.

A batch has `rows.count` streams, one a row (see row_stream.py). Stream b of L reads positions b, b
+ L, b + 2L, ... of each data set, so that all streams together read 0, 1, 2, ...: `position //
records` is the epoch, and each epoch has an order of its own. Nothing here depends on hosts or
workers.
"""

import dataclasses
import functools

import numpy as np

from janus_jax.config.schema import KINDS
from janus_jax.config.steps import ENDLESS, changes, gaps, is_active, seed_of
from janus_jax.data.sources import Source, SourceError

_SMALL = 1 << 16  # records whose order is kept: Grain's shuffle takes up to 9 ms for small sets


@dataclasses.dataclass(frozen=True)
class Entry:
    """A data set of a mixture.

    name, kind: as in the config.
    source: its records.
    weight: its share of its kind.
    steps: (first, end) of those in which it is drawn, or empty for all.
    ids: whether its records carry `image_ids`.
    form: how its records are written, "chat" or "plain".
    continues: whether a text longer than a row goes on in later ones.
    """

    name: str
    kind: str
    source: Source
    weight: float = 1.0
    steps: tuple[int, ...] = ()
    ids: bool = False
    form: str = "chat"
    continues: bool = False

    def active(self, step: int) -> bool:
        return is_active(self, step)


class Mixture:
    """What each row stream of a stage draws next.

    entries: the data sets.
    ratio: examples of each kind.
    seed: of all orders.
    streams: how many row streams there are, one a row of a batch.
    steps: of the stage.

    Raises SourceError for a kind that is asked for and, in some steps, has nothing to draw from,
    and where only some of the generation sets have image_ids.
    """

    def __init__(
        self,
        entries: list[Entry],
        ratio: dict[str, float],
        seed: int,
        streams: int,
        steps: int = ENDLESS,
    ):
        self.entries = [e for e in entries if ratio[e.kind] > 0 and e.weight > 0]
        self.ratio = {kind: ratio[kind] / sum(ratio.values()) for kind in KINDS}
        self.seed = seed
        self.streams = streams
        self.changes = changes(self.entries, steps)  # phase p begins at changes[p]
        if found := gaps({e.name: e for e in self.entries}, ratio, steps):
            raise SourceError("; ".join(found))
        drawing = {e.ids for e in self.entries if e.kind == "generation"}
        if len(drawing) > 1:
            without = ", ".join(
                e.name for e in self.entries if e.kind == "generation" and not e.ids
            )
            raise SourceError(
                f"data.datasets: {without} without image_ids beside others that have them; a batch "
                f"holds pictures or "
                f"ids: run `python -m janus_jax.data tokenize` for all of them, or for none"
            )
        self.precomputed = drawing == {True}
        self.seeds = [seed_of(seed, e.name) for e in self.entries]
        self._kind_credits = credits([self.ratio[kind] for kind in KINDS], streams)
        self._shares = [self._of(step) for step in self.changes]

    def phase(self, step: int) -> int:
        return sum(change <= step for change in self.changes) - 1

    def _of(self, step: int) -> dict[str, tuple]:
        """kind -> (numbers of the entries drawn at a step, their shares, each stream's credits)."""
        out = {}
        for kind in KINDS:
            numbers = [i for i, e in enumerate(self.entries) if e.kind == kind and e.active(step)]
            weights = np.array([self.entries[i].weight for i in numbers])
            shares = weights / weights.sum() if len(numbers) else weights
            out[kind] = numbers, shares, credits(shares, self.streams)
        return out

    def choose(self, stream: int, phase: int, kinds: list[int], drawn_this_phase: list[int]) -> int:
        """The entry that a stream draws from next. kinds: how often it drew each kind so far;
        drawn_this_phase: each entry in this phase."""
        n = sum(kinds)
        owed = [
            share * (n + 1) + credit - count
            for share, credit, count in zip(self.ratio.values(), self._kind_credits[stream], kinds)
        ]
        k = _most([x if self.ratio[kind] > 0 else -np.inf for x, kind in zip(owed, KINDS)])
        return self.choose_of(KINDS[k], stream, phase, drawn_this_phase)

    def choose_of(self, kind: str, stream: int, phase: int, drawn_this_phase: list[int]) -> int:
        """`choose` among the entries of a kind."""
        numbers, shares, credit = self._shares[phase][kind]
        counts = [drawn_this_phase[i] for i in numbers]
        n = sum(counts)
        owed = [s * (n + 1) + c - count for s, c, count in zip(shares, credit[stream], counts)]
        return numbers[_most(owed)]

    def index(self, entry: int, position: int) -> int:
        """The record at a position of an entry's endless order."""
        records = len(self.entries[entry].source)
        epoch, k = divmod(position, records)
        key = seed_of(self.seeds[entry], epoch)
        return shuffled(k, records, key)

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


def credits(shares, streams: int) -> np.ndarray:
    """What each stream is owed before it draws: as if stream b had drawn b times already. So the
    streams stand at different places of one even sequence, and a step's rows hold the shares
    together. float64 [streams, shares]."""
    shares, counts = np.asarray(shares, np.float64), np.zeros(len(shares))
    out = np.zeros((streams, len(shares)))
    for b in range(streams if len(shares) else 0):
        out[b] = shares * b - counts
        counts[_most(np.where(shares > 0, shares * (b + 1) - counts, -np.inf))] += 1
    return out


def _most(owed) -> int:
    """The first of the largest; rounded, so that what is equal but for rounding is equal for every
    stream."""
    return int(np.argmax(np.round(owed, 9)))


def shuffled(k: int, records: int, key: int) -> int:
    """The k-th of so many records in the random order of a key, in [0, 2^32)."""
    if records <= _SMALL:
        return int(_order(key, records)[k])
    from grain.experimental import index_shuffle  # Grain imports JAX where it is installed

    return index_shuffle(k, max_index=records - 1, seed=key, rounds=4)


@functools.lru_cache(64)
def _order(key: int, records: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(records)
