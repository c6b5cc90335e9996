"""The run's processor, and whether a run writes and reads as the weights that it begins with were
trained to: the facts beside weights that a config says again, or that training takes as given."""

import dataclasses
import pathlib

from janus_jax.checkpoint.inspect import has_trained
from janus_jax.common.files import has_weights
from janus_jax.common.text import listed
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import Tokenizer

CONSEQUENCE = {  # field of a processor -> what another value means
    "user": "give the config's template theirs, or the model has to learn the other words",
    "assistant": "give the config's template theirs, or the model has to learn the other words",
    "system": "give the config's template theirs, or the model has to learn the other words",
    "image_mean": "training knows this one alone: pictures look otherwise to the model at first",
    "image_std": "training knows this one alone: pictures look otherwise to the model at first",
    "background": "training knows this one alone: margins look otherwise to the model at first",
    "context": "what this run hands on says so too; set rows.length to no more than theirs",
    "cfg_scale": "evaluation.cfg_scale is what this run draws with and hands on",
    "temperature": "evaluation.temperature is what this run draws with and hands on",
}


def run_processor(experiment: Experiment, tokenizer: Tokenizer) -> Processor:
    """Raises ConfigError for a tokenizer of more ids than the model has embeddings."""
    model = experiment.model
    e = experiment.evaluation
    if len(tokenizer) > model.transformer.vocabulary:
        raise ConfigError(
            f"model.transformer.vocabulary is {model.transformer.vocabulary}: the tokenizer has "
            f"{len(tokenizer)} ids"
        )
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    return Processor(tokenizer, experiment.template, *counts, e.cfg_scale, e.temperature)


def cut_tokenizer(workdir: pathlib.Path) -> list[str]:
    """Why the tokenizer that a run learned cannot be read; empty where it can, or something was
    trained with it."""
    if has_trained(workdir) or any(map(has_weights, workdir.glob("*/"))):
        return []
    try:
        Tokenizer.load(workdir)
    except FileNotFoundError:
        return []
    except ValueError as error:
        return [f"tokenizer: {error}. Nothing was trained with it: it is learned again"]
    return []


def unlike_weights(experiment: Experiment, ours: Processor, weights: dict) -> list[str]:
    """What stages are warned of that begin with weights of another processor.

    experiment: the config.
    ours: the run's.
    weights: stage -> path -> the source that it begins with.
    """
    found = []
    for name, sources in weights.items():
        for path, source in sources.items() if experiment.stages[name].rows else ():
            try:
                theirs = source.processor()
            except (OSError, ValueError):
                continue  # told with the tokenizer, if it is wrong
            lines = _unlike(_facts(theirs), _facts(ours)) if theirs else []
            if lines:
                found.append(
                    f"stages.{name}.init: {path} knows otherwise than this run:{listed(lines)}"
                )
    return found


def _facts(processor: Processor) -> dict:
    values = dataclasses.asdict(processor.template) | vars(processor)
    return {name: values[name] for name in CONSEQUENCE}


def _unlike(theirs: dict, ours: dict) -> list[str]:
    return [
        f"{name} is {theirs[name]!r} there, {ours[name]!r} here; {consequence}"
        for name, consequence in CONSEQUENCE.items()
        if theirs[name] != ours[name]
    ]
