"""Benchmarks scored at each evaluation of a stage: those of `evaluation.benchmarks`."""

import functools
import pathlib
import shutil
import time

from janus_jax.common import provenance
from janus_jax.common.paths import expanded
from janus_jax.common.text import near
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.data.processor import Processor
from janus_jax.eval import result
from janus_jax.eval.benchmark import HALVES, NAMES, load
from janus_jax.eval.during_asked import read_asked
from janus_jax.sample.generate import generate
from janus_jax.sample.understand import understand_batch
from janus_jax.training.stage_plan import StagePlan

FORM = "NAME=DATA, or NAME@COUNT=DATA for the first so many, such as pope@200=/data/POPE.tsv"
FOLDER = "evaluation"  # in a work directory: a folder for each stage and step


class Scores:
    """Of one stage.

    Args:
        experiment: the config.
        stage: its name.
        workdir: where the results go, WORKDIR/evaluation/<stage>-<step>/<benchmark>-<half>.
        say: hears what is left out: of the benchmarks' halves those of which the stage keeps no
            example.

    Reads the benchmarks' files. Raises ConfigError for what is no benchmark that can be scored
    here, UsageError for files that cannot be used.
    """

    def __init__(self, experiment: Experiment, stage: str, workdir: pathlib.Path, say):
        self.stage = stage
        self.folder = workdir / FOLDER
        self.say = say
        keeps = StagePlan.of(experiment, stage).keeps
        found = tasks(experiment)
        for task in found:
            if task.half not in keeps:
                say(
                    f"  {task.half}/{task.name} is not scored: {_keeps_no(experiment, stage, task.half)}"
                )
        self.asked = [(task, task.read(say)) for task in found if task.half in keeps]

    def __call__(self, step: int, model, processor) -> dict[str, float]:
        """ "<half>/<benchmark>" -> its headline score, by a model of `step`."""
        found = {}
        size = model.config.generation_encoder.image_size
        facts = {"name": f"{self.stage}, step {step}", "native_size": size}
        work = [functools.partial(do, model, processor) for do in (generate, understand_batch)]
        for task, asked in self.asked:
            begun = time.time()
            folder = self.folder / f"{self.stage}-{step}" / f"{task.name}-{task.half}"
            # What a killed run has left may be of other weights: a spike can change the way here.
            shutil.rmtree(folder, ignore_errors=True)
            settings = task.settings(asked, facts, processor)
            try:
                provenance.begin(folder, settings)
                result.fill(task, asked, folder, settings, lambda: (*work, processor), (0, 1))
                report = result.finish(task, asked, folder, settings, begun, self.say)
            except OSError as error:  # a full disk does not stop training
                self.say(f"ERROR: no {task.name} of step {step} ({error})")
                continue
            headline = report["scores"].get(task.module.HEADLINE)
            if headline:
                found[f"{task.half}/{task.name}"] = headline["value"]
        return found


def require_scorable(experiment: Experiment, processor: Processor):
    """Finds all that is wrong with `evaluation.benchmarks`, `prompts` and `questions`, and their
    files. Raises ConfigError and UsageError."""
    read_asked(experiment, processor)
    found = tasks(experiment)
    names = [f"{task.half}/{task.name}" for task in found]
    best = experiment.checkpoints.best
    if best.startswith(tuple(f"{half}/" for half in HALVES)) and best not in names:
        raise ConfigError.of([f"checkpoints.best is {best!r}: unknown{near(best, names)}"])
    problems = []
    for stage in experiment.stages:
        keeps = StagePlan.of(experiment, stage).keeps
        gone = [task for task in found if task.half not in keeps]
        problems += [
            f"checkpoints.best is {best!r}: {_keeps_no(experiment, stage, task.half)}"
            for task in gone
            if best == f"{task.half}/{task.name}"
        ]
        if gone and gone == found:
            why = _keeps_no(experiment, stage, gone[0].half)
            problems.append(f"evaluation.benchmarks: nothing of it would be scored, for {why}")
    if problems:
        raise ConfigError.of(problems)
    for task in found:
        task.read(lambda text: None)


def _keeps_no(experiment: Experiment, stage: str, half: str) -> str:
    keep = experiment.stages[stage].options["keep"]
    return f"stages.{stage}.options.keep is {keep!r}, so that {half} is not learned"


def tasks(experiment: Experiment) -> list[result.Task]:
    """What the config asks for; a world's name stands for both halves of it. Raises ConfigError
    with all that cannot be scored."""
    e = experiment.evaluation
    how = {"cfg_scale": e.cfg_scale, "temperature": e.temperature, "seed": experiment.seed + 1000}
    found = []
    problems = []
    names = []
    for asked in e.benchmarks:
        named, _, data = asked.partition("=")
        name, at, limit = named.partition("@")
        names.append(name)
        halves = [half for half in HALVES if name in NAMES[half]]
        why = ""
        if not data or (at and not (limit.isdigit() and int(limit))):
            why = f"must be {FORM}"
        elif names.count(name) > 1:
            why = f"{name} is there before; its scores have one name, so give it once"
        elif not halves:
            why = f"no benchmark{near(name, sorted({*NAMES[HALVES[0]], *NAMES[HALVES[1]]}))}"
        elif any(hasattr(load(half, name), "to_judge") for half in halves):
            why = "a judge scores it: take janus-jax eval, once the weights are there"
        elif "generation" in halves and not hasattr(load("generation", name), "grade"):
            why = "its scorer is another program: take janus-jax eval, once the weights are there"
        problems += [f"evaluation.benchmarks has {asked!r}: {why}"] if why else []
        data = data if why or ":" in data else expanded(data)
        found += [
            result.Task(half, name, data, limit=int(limit or 0), **how)
            for half in halves
            if not why
        ]
    if problems:
        raise ConfigError.of(problems)
    return found
