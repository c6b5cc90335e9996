"""The records of a data set that no stage trains on, and the others."""

from janus_jax.config.steps import seed_of
from janus_jax.data.mixture import shuffled
from janus_jax.data.sources import Source, SourceError


class Part:
    """A source of some of another's records, in a random order: those of the `count` places from
    `first` on. The order depends on the key and the number of records alone, so all stages, hosts
    and starts of a run cut a data set alike, and so do two data sets of the same records."""

    def __init__(self, source: Source, key: int, first: int, count: int):
        self.source = source
        self.key = key
        self.first = first
        self.count = count
        self.fingerprint = f"{source.fingerprint} {first}+{count} of {len(source)} by {key}"
        # What a data set says of its pictures holds for a part too.
        for name in ("ids", "scored_by", "attribution"):
            if hasattr(source, name):
                setattr(self, name, getattr(source, name))

    @classmethod
    def of(cls, source: Source, name: str, share: float, seed: int, held_out: bool) -> "Part":
        """The held-out records, `share` of all, rounded and at least one; or the others.

        Args:
            source: all records.
            name: of the data set.
            share: in (0, 1).
            seed: the experiment's.
            held_out: which of the two parts.

        Raises SourceError where one of them would be empty.
        """
        records = len(source)
        held = max(round(share * records), 1)
        if held >= records:
            raise SourceError(
                f"data.datasets.{name}: of its {records} record(s) evaluation.holdout {share:g} "
                f"takes {held}, which leaves none to train on; add records, or set "
                f"evaluation.holdout to 0{' or lower' if records > 1 else ''}"
            )
        key = seed_of(seed, f"held out of {records}")
        return cls(source, key, 0, held) if held_out else cls(source, key, held, records - held)

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Part({self.source!r}, {self.first}+{self.count})"

    def index(self, i: int) -> int:
        """The number of record `i` in the whole source. Raises IndexError where there is none."""
        if not 0 <= i < self.count:
            raise IndexError(f"record {i} of {self.count}")
        return shuffled(self.first + int(i), len(self.source), self.key)

    def __getitem__(self, i: int) -> dict:
        return self.source[self.index(i)]

    def image(self, i: int, k: int = 0):
        return self.source.image(self.index(i), k)

    def where(self, i: int) -> str:
        return self.source.where(self.index(i))
