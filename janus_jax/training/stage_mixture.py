"""Which records a stage draws and what it makes of one, as its config says; nothing is read
here."""

import zlib

from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.holdout import stage_entries, stage_mixture_of
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.row_stream import RowStream
from janus_jax.training.stage_plan import StagePlan

# Streams and their rows that tell how many examples a step holds, and those before, until what waits
# has its lasting make-up: where pictures fill a row before its tokens do, the first rows are fuller.
STREAMS = 2
WARM = 10
ROWS = 8


def mixture_of(plan: StagePlan, entries: list[Entry]) -> Mixture:
    """How the stage draws from its entries. Raises SourceError."""
    return stage_mixture_of(plan.experiment, plan.name, entries, partly=plan.held_out)


def encoder(plan: StagePlan, processor, of=ExampleEncoder) -> ExampleEncoder:
    """What the stage makes of a record, as a task that reads others than single ones says."""
    stage = plan.stage
    of = getattr(plan.task, "ENCODER", lambda of: of)(of)
    chances = stage.condition_dropout, stage.first_sentence
    return of(processor, plan.experiment.model, stage.rows, stage.supervise, *chances)


class WithoutPixels(ExampleEncoder):
    """Opens no picture: for what depends on lengths alone."""

    def pixels(self, *_) -> list:
        return []


def examples_a_step(plan: StagePlan, mixture: Mixture, processor) -> dict[int, float]:
    """The first step of each phase of the stage -> how many examples a step holds then, by how full
    rows of a few streams are and how long the examples that they drew, at the ratio."""
    reader = encoder(plan, processor, WithoutPixels)
    out = {}
    for first in mixture.changes:
        streams = [RowStream(mixture, reader, n) for n in range(min(STREAMS, mixture.streams))]
        count = range(WARM + ROWS)
        rows = [[stream.row(first)["drawn"] for _ in count] for stream in streams]
        tokens = lambda rows: [tokens for row in rows for *_, tokens in row]
        drawn = [w.size[0] for stream in streams for w in stream.buffer]
        drawn += [n for own in rows for n in tokens(own)]
        filled = [sum(tokens(own[WARM:])) / ROWS for own in rows]
        mean = sum(drawn) / len(drawn)
        out[first] = sum(filled) / len(filled) / mean * mixture.streams
    return out


def entries_of(plan: StagePlan, sources: dict) -> list[Entry]:
    """What the stage draws from. sources: by name, of those that were opened."""
    return stage_entries(plan.experiment, plan.name, sources, plan.held_out)


def contents(mixture: Mixture) -> dict:
    """What its data sets hold, as a checkpoint says it and the next start compares it."""
    return {"datasets": {e.name: {"content": e.source.fingerprint} for e in mixture.entries}}


def loss_begins(plan: StagePlan) -> int:
    """The step, from 1, at which the stage's loss gets a further term, its discriminator's; 0 for
    none."""
    start = plan.options.get("discriminator_start", 0) if plan.options.get("discriminator") else 0
    return int(start)


def phases(plan: StagePlan, mixture: Mixture) -> list[tuple[int, str]]:
    """(first batch, a name of what is drawn from it on and how it is written) for each change of
    data, the same wherever and whenever the stage draws the same."""
    content = {e.name: (e.source.fingerprint, e.form, e.continues) for e in mixture.entries}
    stage = plan.stage
    written = stage.supervise, stage.condition_dropout, stage.first_sentence
    same = mixture.streams, stage.rows, written, plan.experiment.template
    out = []
    for first in mixture.changes:
        drawn = sorted((name, share, content[name]) for name, share in mixture.asked(first).items())
        text = repr((same, drawn))
        out.append((first, f"{zlib.crc32(text.encode()):08x}"))
    return out
