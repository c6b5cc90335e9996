"""A stage's `steps` of so many epochs of a data set, as a number: the data sets are open."""

import dataclasses
import pathlib

from janus_jax.config.epochs import endless, epochs_of, steps_until, uncounted
from janus_jax.config.schema import Experiment
from janus_jax.data import catalog
from janus_jax.data.sources import SourceError
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.training import preflight_processor, stage_mixture
from janus_jax.training.report import Report
from janus_jax.training.stage_plan import StagePlan

SUBJECT = "epochs"  # of the lines that tell how many steps they are


def count_steps(experiment: Experiment, sources: dict, workdir: pathlib.Path):
    """(the experiment with numbers in place of epochs, what was found). An epoch is as many steps
    as draw, at the stage's ratio and the data set's weight, as many records as the data set has
    without what is held out; a step holds as many examples as its first rows do.

    experiment: the config.
    sources: all that its stages draw, opened, by name.
    workdir: of the run, which may have learned a tokenizer already.
    """
    report = Report()
    unended = endless(experiment)
    stages = dict(experiment.stages)
    for name in uncounted(experiment):
        stage = experiment.stages[name]
        epochs, of = epochs_of(stage.steps)
        path = f"stages.{name}.steps is {stage.steps!r}"
        plan = StagePlan.of(unended, name)
        try:
            rates, records = _drawn(plan, of, sources, workdir)
        except (SourceError, ValueError) as error:
            report.config.append(f"{path}: the steps cannot be counted: {error}")
            continue
        steps = steps_until(epochs * records, rates)
        if steps is None:
            report.config.append(
                f"{path}: data.datasets.{of}.steps ends before so many are drawn; widen it"
            )
            continue
        stages[name] = dataclasses.replace(stage, steps=steps)
        each = "then ".join(f"about {rate:.3g} a step" for rate in rates.values())
        text = f"{name}: {stage.steps} are {steps:,} steps: {records:,} records, {each}"
        report.tell(SUBJECT, text)
    return dataclasses.replace(experiment, stages=stages), report


def _drawn(plan: StagePlan, of: str, sources: dict, workdir: pathlib.Path):
    """(first step of each phase -> how many records of a data set each of its steps draws, how many
    it has)."""
    entries = stage_mixture.entries_of(plan, sources)
    mixture = stage_mixture.mixture_of(plan, entries)
    examples = dict.fromkeys(mixture.changes, plan.stage.batch_size)
    if plan.stage.rows is not None:
        processor = _processor(plan.experiment, sources, workdir)
        examples = stage_mixture.examples_a_step(plan, mixture, processor)
    rates = {first: n * mixture.asked(first).get(of, 0.0) for first, n in examples.items()}
    (records,) = (len(entry.source) for entry in entries if entry.name == of)
    return rates, records


def _processor(experiment: Experiment, sources: dict, workdir: pathlib.Path):
    directory = pathlib.Path(experiment.tokenizer or workdir)
    cut = preflight_processor.cut_tokenizer(workdir)
    if experiment.tokenizer or ((directory / "tokenizer.json").is_file() and not cut):
        tokenizer = Tokenizer.load(directory)
    else:
        vocabulary = experiment.model.transformer.vocabulary
        tokenizer = catalog.learn_tokenizer(list(sources.values()), experiment.template, vocabulary)
    return preflight_processor.run_processor(experiment, tokenizer)
