"""What a stage draws of its data sets: the records that none trains on, or the others."""

from janus_jax.config.held_out import holdout_of
from janus_jax.config.schema import Experiment
from janus_jax.config.steps import seed_of
from janus_jax.data.mixture import Entry, Mixture, shuffled
from janus_jax.data.sources import Source, SourceError


def stage_entries(
    experiment: Experiment, stage: str, sources: dict, held_out: bool = False
) -> list[Entry]:
    """The data sets that a stage draws, each without its held-out records; or these alone, of the
    data sets that have some.

    experiment: the config.
    stage: its name.
    sources: those that were opened, by name.
    held_out: which of the two.
    """
    # A task that packs no rows reads the images themselves, ids or not.
    packs = experiment.stages[stage].rows is not None
    out = []
    for name, d in experiment.data.drawn_by(stage).items():
        part = part_of(experiment, name, sources[name], held_out) if name in sources else None
        if part is not None:
            form = experiment.stages[stage].form(d)
            ids = packs and bool(d.image_ids)
            out.append(Entry(name, d.kind, part, d.weight, d.steps, ids, form, d.continues))
    return out


def stage_mixture_of(
    experiment: Experiment, stage: str, entries: list[Entry], partly: bool = False
) -> Mixture:
    """How a stage draws from its entries. Raises SourceError.

    partly: leaves out the kinds that no entry has, which else are an error.
    """
    s = experiment.stages[stage]
    rows = s.rows.count if s.rows else s.batch_size
    there = {e.kind for e in entries if e.weight > 0}
    ratio = {kind: n if kind in there or not partly else 0 for kind, n in vars(s.ratio).items()}
    return Mixture(entries, ratio, experiment.seed_of(stage), rows, s.steps)


def part_of(experiment: Experiment, name: str, source: Source, held_out: bool) -> Source | None:
    """The records of a data set that are held out, None where there are none; or the others. Raises
    SourceError where none would be left to train on."""
    asked = holdout_of(experiment, name)
    if isinstance(asked, str):
        return source.held_out if held_out else source
    if not asked:
        return None if held_out else source
    return Part.of(source, name, asked, experiment.seed, held_out)


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
            share: in (0, 1); or from 1 on how many records.
            seed: the experiment's.
            held_out: which of the two parts.

        Raises SourceError where one of them would be empty.
        """
        records = len(source)
        held = int(share) if share >= 1 else max(round(share * records), 1)
        if held >= records:
            lower = " or lower" if records > 1 else ""
            raise SourceError(
                f"data.datasets.{name}: of its {records} record(s) holdout {share:g} takes {held}, "
                f"which leaves none to train on; add records, or set data.datasets.{name}.holdout "
                f"to 0{lower}"
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
