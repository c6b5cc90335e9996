"""A config's data sets opened, and the first record of each read as training would: pictures decode, text becomes
tokens, both fit a row. On request none is waited for longer than some seconds.
"""

import threading
import time

import numpy as np

from janus_jax import batch as bt
from janus_jax import feed
from janus_jax.data import catalog
from janus_jax.data.images import generation_image
from janus_jax.data.lanes import BAD, IN_A_ROW
from janus_jax.data.pipeline import FORMAT, fingerprint
from janus_jax.data.position import moved
from janus_jax.data.processor import Processor
from janus_jax.data.sources import Source, SourceError
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.experiment import ConfigError, Experiment

ROOT = "data.datasets."


def needed(experiment: Experiment) -> dict:
    """The lines of data.datasets that some stage draws from."""
    kinds = {kind for s in experiment.stages.values() for kind, share in vars(s.ratio).items() if share > 0}
    kinds |= {"generation"} if experiment.stage0 else set()
    return {name: d for name, d in experiment.data.datasets.items() if d.kind in kinds and d.weight > 0}


def open_sources(experiment: Experiment, wrong: list[str], seconds: float | None):
    """(sources by name, problems, names of those that took longer than `seconds`; None: all are waited for).

    wrong: what is known to be wrong with the config; a line that it names is left out.
    """
    side = max(experiment.model.generation_encoder.image_size, 1)
    resized = max(experiment.model.understanding_encoder.image_size, 1)
    lines = {
        name: line
        for name, line in needed(experiment).items()
        if not any(problem.startswith(f"{ROOT}{name}.") for problem in wrong)
    }
    opened, failed = within(
        {
            name: lambda n=name, d=line: catalog.open_datasets(
                {n: d}, side, experiment.seed, resized=resized
            )[n]
            for name, line in lines.items()
        },
        seconds,
    )
    late = [name for name in lines if name not in opened and name not in failed]
    sources = {name: opened[name] for name in lines if name in opened}
    return sources, _told(lines, failed), late


def first_records(experiment: Experiment, sources: dict, processor: Processor, seconds: float | None):
    """(data set -> what its first record is to each stage, problems, warnings, names of those that took too long)."""
    read, failed = within(
        {name: lambda n=name: _firsts(experiment, n, sources[n], processor) for name in sources}, seconds
    )
    late = [name for name in sources if name not in read and name not in failed]
    told = {name: read[name][0] for name in sources if name in read}
    warnings = [line for name in told for line in read[name][1]]
    return told, _told(sources, failed), warnings, late


def position_problems(
    experiment: Experiment, stage: str, sources: dict, processor: Processor, position: dict | None
) -> tuple[list[str], list[str]]:
    """(problems, warnings) of what the stage draws: with image_ids and without, and, where it goes on from a position,
    whether the data is still the one that it was trained on. All its data sets must be open."""
    try:
        mixture, encoder = feed.drawing(experiment, stage, feed.drawn(experiment, stage, sources), processor)
        if position is None:
            return [], []
        accept = experiment.data.on_change == "accept"
        said = moved(position, fingerprint(mixture, encoder), mixture, FORMAT, accept)[1]
        return [], [f"stages.{stage}, its data: {line}" for line in said]
    except SourceError as error:
        return [f"stages.{stage}: {error}"], []


def processor(experiment: Experiment, tokenizer: Tokenizer) -> Processor:
    """Raises ConfigError for a tokenizer of more ids than the model has embeddings."""
    model, e = experiment.model, experiment.evaluation
    if len(tokenizer) > model.transformer.vocabulary:
        raise ConfigError(
            f"model.transformer.vocabulary is {model.transformer.vocabulary}: the tokenizer has {len(tokenizer)} ids"
        )
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    return Processor(tokenizer, experiment.template, *counts, e.cfg_scale, e.temperature)


def within(jobs: dict, seconds: float | None) -> tuple[dict, dict]:
    """(name -> result, name -> SourceError) of the jobs that have ended after `seconds`; others go on in the
    background. None: one after the other, until all have ended. What else a job raises is raised here."""
    results, errors = {}, {}

    def work(name):
        try:
            results[name] = jobs[name]()
        except Exception as error:
            errors[name] = error

    if seconds is None:
        for name in jobs:
            work(name)
    else:
        threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in jobs]
        until = time.monotonic() + seconds
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0, until - time.monotonic()))
    found, failed = dict(results), dict(errors)  # what ends later changes nothing any more
    for error in failed.values():
        if not isinstance(error, SourceError):
            raise error
    return found, failed


def _told(names, failed: dict) -> list[str]:
    return [str(failed[name]) for name in names if name in failed]


def _firsts(experiment: Experiment, name: str, source: Source, processor: Processor) -> tuple[str, list[str]]:
    """What the first usable record of a data set is, and a warning where it is not the very first."""
    told, warnings = {}, []
    for stage, use in _uses(experiment, name, processor).items():
        tried, first = min(IN_A_ROW, len(source)), None
        for i in range(tried):
            try:
                text = use(source, i)
                break
            except BAD as error:
                first = first or error
        else:
            raise SourceError(
                f"{ROOT}{name}: {stage} can use none of its first {tried} records; the first of them: {first}"
            )
        told.setdefault(text, []).append(stage)
        if first:
            warnings.append(f"{ROOT}{name}: {stage} cannot use its first {i} records, such as: {first}")
    return "; ".join(f"{text} ({', '.join(stages)})" for text, stages in told.items()), warnings


def _uses(experiment: Experiment, name: str, processor: Processor) -> dict:
    """Stage -> a function of (source, index) that reads a record as the stage does, and says what it is."""
    line, out = experiment.data.datasets[name], {}
    if experiment.stage0 and line.kind == "generation" and name in experiment.data.of("stage0"):
        side = experiment.model.generation_encoder.image_size
        out["stage0"] = lambda source, i: (
            f"picture of {generation_image(source.image(i), side).shape[0]} pixels"
        )
    for stage, config in experiment.stages.items():
        if vars(config.ratio)[line.kind] > 0 and name in experiment.data.of(stage):
            encoder = feed.encoder(experiment, stage, processor)
            out[stage] = lambda source, i, encoder=encoder: _read(encoder, line.kind, source, i)
    return out


def _read(encoder, kind: str, source: Source, i: int) -> str:
    record = source[i]
    example = encoder(kind, record, np.random.default_rng(0))
    shown = len(encoder.pixels(kind, source, i, record, example)) if kind != "text" else 0
    what = "picture" if "image_ids" not in record else "picture as ids"
    pictures = f" with {shown} {what}" + "s" * (shown > 1) if shown else ""
    cut = ", cut to a row" if example["example"][0] >= bt.TRUNCATED else ""
    return f"{len(example['tokens'])} tokens{pictures}{cut}"
