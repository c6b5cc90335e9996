"""What a config says about a stage's data, opened: this process's part of its batches."""

import dataclasses
import pathlib

from janus_jax import hosts
from janus_jax import sharding as sh
from janus_jax.convert.source import open_source
from janus_jax.data.lanes import Encoder
from janus_jax.data.ledger import Ledger
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.pipeline import Batches, RandomPictures
from janus_jax.data.processor import Processor
from janus_jax.experiment import Experiment
from janus_jax.log import Log
from janus_jax.weights import VQ, flatten


def open_data(
    experiment: Experiment, name: str, sources, processor: Processor, directory, log: Log
) -> Batches:
    """The stage's mixture, packed into this process's part of its batches."""
    stage, data = experiment.stages[name], experiment.data
    entries = drawn(experiment, name, sources)
    for entry in entries:
        if entry.steps and entry.steps[0] >= stage.steps:
            log.say(
                f"  {entry.name} is never drawn: its steps begin at {entry.steps[0]}, the stage has {stage.steps}"
            )
    mixture, encode = drawing(experiment, name, entries, processor)
    share, of = sh.batch_share()
    return Batches(
        mixture, encode, share=share, of=of, workers=data.workers,
        ledger=ledger(experiment, mixture, directory, log), accept=data.on_change == "accept",
    )  # fmt: skip


def drawing(
    experiment: Experiment, name: str, entries: list[Entry], processor: Processor
) -> tuple[Mixture, Encoder]:
    """How the stage `name` draws from its entries, and what it makes of a record. Raises SourceError."""
    stage = experiment.stages[name]
    seed = experiment.seed + list(experiment.stages).index(name)  # no stage repeats another's order
    mixture = Mixture(entries, vars(stage.ratio), seed, stage.rows.count, stage.steps)
    return mixture, encoder(experiment, name, processor)


def encoder(experiment: Experiment, name: str, processor: Processor) -> Encoder:
    """What the stage `name` makes of a record."""
    stage = experiment.stages[name]
    chances = stage.condition_dropout, stage.first_sentence
    return Encoder(processor, experiment.model, stage.rows, stage.supervise, *chances)


def drawn(experiment: Experiment, name: str, sources: dict) -> list[Entry]:
    """What the stage `name` draws from."""
    return [
        Entry(key, d.kind, sources[key], d.weight, d.steps, bool(d.image_ids))
        for key, d in experiment.data.of(name).items()
        if key in sources
    ]


def ledger(experiment: Experiment, mixture: Mixture, directory: pathlib.Path, log: Log) -> Ledger:
    listing = directory / "rotten.jsonl" if hosts.first() else None
    return Ledger(mixture, log.say, listing, experiment.data.max_bad_fraction)


def open_pictures(experiment: Experiment, sources: dict, directory: pathlib.Path, log: Log) -> RandomPictures:
    """What stage 0 learns from."""
    config, side = experiment.stage0, experiment.model.generation_encoder.image_size
    entries = [
        dataclasses.replace(entry, ids=False)  # its pictures are learned from, with ids or without
        for entry in drawn(experiment, "stage0", sources)
        if entry.kind == "generation"
    ]
    only = {"understanding": 0, "text": 0, "generation": 1}
    mixture = Mixture(entries, only, experiment.seed, config.batch_size, config.steps)
    return RandomPictures(mixture, side, *sh.batch_share(), ledger(experiment, mixture, directory, log))


def require_ids(model, weights: list, params: dict, sources: list):
    """Raises SourceError unless stored ids are those of the tokenizer with which the stage begins.

    weights: the directories that it begins with; params: of generation_encoder; sources: `image_ids.WithIds`.
    """
    holds = lambda directory: any(name.startswith(VQ) for name in open_source(directory).leaves)
    named = next(filter(holds, reversed(weights)), "drawn at random")
    arrays, sizes = flatten(params), dataclasses.asdict(model.generation_encoder)
    for source in sources:
        source.ids.require(arrays, sizes, str(named))
