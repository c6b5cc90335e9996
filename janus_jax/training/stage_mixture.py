"""Which records a stage draws and what it makes of one, as its config says; nothing is read
here."""

import zlib

from janus_jax.data.holdout import Part
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.row_stream import ExampleEncoder, RowStream
from janus_jax.training.stage_plan import StagePlan

# Streams and their rows that tell how many examples a step holds.
STREAMS = 4
ROWS = 6


def mixture_of(plan: StagePlan, entries: list[Entry]) -> Mixture:
    """How the stage draws from its entries. Raises SourceError."""
    stage = plan.stage
    rows = stage.rows.count if stage.rows else stage.batch_size
    seed = plan.experiment.seed_of(plan.name)
    return Mixture(entries, vars(stage.ratio), seed, rows, stage.steps)


def encoder(plan: StagePlan, processor, of=ExampleEncoder) -> ExampleEncoder:
    """What the stage makes of a record."""
    stage = plan.stage
    chances = stage.condition_dropout, stage.first_sentence
    return of(processor, plan.experiment.model, stage.rows, stage.supervise, *chances)


class WithoutPixels(ExampleEncoder):
    """Opens no picture: for what depends on lengths alone."""

    def pixels(self, *_) -> list:
        return []


def examples_a_step(plan: StagePlan, mixture: Mixture, processor) -> dict[int, float]:
    """The first step of each phase of the stage -> how many examples a step holds then, by how full
    the first rows of a few streams are and how long the examples that they drew, at the ratio."""
    reader = encoder(plan, processor, WithoutPixels)
    out = {}
    for first in mixture.changes:
        streams = [RowStream(mixture, reader, n) for n in range(min(STREAMS, mixture.streams))]
        rows = [stream.row(first)["drawn"] for stream in streams for _ in range(ROWS)]
        taken = [tokens for row in rows for *_, tokens in row]
        waiting = [w.size[0] for stream in streams for w in stream.buffer]
        mean = (sum(taken) + sum(waiting)) / len(taken + waiting)
        out[first] = sum(taken) / len(rows) / mean * mixture.streams
    return out


def entries_of(plan: StagePlan, sources: dict) -> list[Entry]:
    """What the stage draws from. sources: by name, of those that were opened."""
    # A task that packs no rows reads the images themselves, ids or not.
    packs = plan.stage.rows is not None
    experiment = plan.experiment
    share = experiment.evaluation.holdout
    part = lambda name: Part.of(sources[name], name, share, experiment.seed, plan.held_out)
    return [
        Entry(
            name,
            d.kind,
            part(name) if share else sources[name],
            d.weight,
            d.steps,
            packs and bool(d.image_ids),
            plan.stage.form(d),
            d.continues,
        )
        for name, d in experiment.data.drawn_by(plan.name).items()
        if name in sources
    ]


def contents(mixture: Mixture) -> dict:
    """What its data sets hold, as a checkpoint says it and the next start compares it."""
    return {"datasets": {e.name: {"content": e.source.fingerprint} for e in mixture.entries}}


def loss_begins(plan: StagePlan) -> int:
    """The step, from 1, at which the stage's loss gets a further term, its discriminator's; 0 for
    none."""
    start = plan.options.get("discriminator_start", 0) if plan.options.get("discriminator") else 0
    return int(start)


def phases(plan: StagePlan, mixture: Mixture) -> list[tuple[int, str]]:
    """(first batch, a name of what is drawn from it on) for each change of data, the same wherever
    and whenever the stage draws the same."""
    content = {e.name: e.source.fingerprint for e in mixture.entries}
    out = []
    for first in mixture.changes:
        drawn = sorted((name, share, content[name]) for name, share in mixture.asked(first).items())
        text = repr((mixture.streams, plan.stage.rows, drawn))
        out.append((first, f"{zlib.crc32(text.encode()):08x}"))
    return out
