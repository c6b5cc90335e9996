"""What is stored for a run already, and whether it fits: checkpoints, the weights that a stage
begins with, the tokenizer that they know, and room for more. Reads headers, sizes and small files;
never an array.
"""

import hashlib
import pathlib

import jax
from flax import nnx

from janus_jax.checkpoint.inspect import (
    ASIDE,
    StageProgress,
    inspect_stage,
    leaves,
    stage_directory,
)
from janus_jax.common.files import has_weights
from janus_jax.common.text import listed
from janus_jax.config.optim import part_problems
from janus_jax.config.schema import Experiment
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.distributed import processes
from janus_jax.model import low_rank
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.training.perceptual import read_lpips
from janus_jax.training.preflight_disk import room
from janus_jax.training.preflight_finetune import finetuning_warnings
from janus_jax.training.preflight_teacher import (
    held_by,
    missing_teachers,
    other_teachers,
    random_eyes,
)
from janus_jax.training.report import Report
from janus_jax.training.stage_plan import StagePlan, learns, shape
from janus_jax.training.state import TrainState
from janus_jax.weights.processor_files import moved_ids, require_same
from janus_jax.weights.reader import WeightReader, children, other_sizes, require_fit
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError


def look_at_weights(
    experiment: Experiment, workdir: pathlib.Path, where: pathlib.Path, devices: int, again=()
):
    """((stage -> where it begins, stage -> the sources that it begins with), what was found).

    Checkpoints are the first process's business, which tells for all: others may not see yet what
    is there.
    where: a directory on the disk of `workdir`. devices: as many as the run will have. again: the
    stages that are done and go on.
    """
    report = Report()
    told = report if processes.is_lead() else Report()
    states, params = shapes(experiment, devices)
    starts = {}
    for name, state in states.items():
        starts[name] = progress = inspect_stage(workdir, name, leaves(state), name in again)
        told.config += progress.problems
        told.damaged += progress.lost
        told.warnings += progress.warnings
    begin = [name for name in experiment.stages if not starts[name].begun]
    unread = file_problems(experiment, begin)
    report.config += unread
    weights = {}
    for name, state in states.items():
        plan = StagePlan.of(experiment, name)
        whole = {**state.params, **{child: params[child] for child in plan.without}}
        own = low_rank.unscaled(whole)
        if name in begin:
            weights[name], problems = init_sources(experiment, name, workdir, own)
            report.config += problems + other_teachers(plan)
            if not problems and not unread:
                held = held_by(plan, weights[name], states)
                report.config += missing_teachers(plan, held, states)
                told.warnings += random_eyes(plan, held, states)
                told.warnings += finetuning_warnings(plan, weights[name])
        elif not starts[name].done:
            told.config += _aside_problems(plan, workdir, own)
        report.config += part_problems(f"stages.{name}", plan.stage.optim, state.trainable)
    numbers = sum(x.size for x in jax.tree.leaves(params))
    llm = experiment.model.transformer
    layers = f"{llm.layers} layers of width {llm.width}, {llm.vocabulary:,} text ids"
    dtype = experiment.model.dtype
    report.tell("model", f"{numbers:,} parameters, {layers}; computes in {dtype}")
    for name in states:
        own = (*states[name].params, *StagePlan.of(experiment, name).without)
        report.tell(name, stage_line(experiment, name, starts[name], weights.get(name, {}), own))
    said, problems, warnings = room(where, experiment, states, params, starts)
    report.tell("room", said)
    told.config += problems
    told.warnings += warnings
    return (starts, weights), report


def _aside_problems(plan: StagePlan, workdir: pathlib.Path, params: dict) -> list[str]:
    """Why a stage that goes on cannot have the weights that its checkpoints do without (the VQ
    tokenizer, where images come as stored ids)."""
    wanted = {child: params[child] for child in plan.without}
    aside = stage_directory(workdir, plan.name) / ASIDE
    previous = plan.experiment.previous(plan.name)
    places = [workdir / previous if x == "previous" else x for x in plan.stage.init]
    for path in (aside, *places) if wanted else ():
        try:
            require_fit(open_source(path), wanted, partly=True)
            return []
        except (OSError, ValueError):
            continue
    if not wanted:
        return []
    return [
        f"stages.{plan.name} goes on from a checkpoint without {', '.join(wanted)}, and neither {aside} "
        f"nor its init ({', '.join(map(str, places)) or 'empty'}) holds that any more; put one back"
    ]


def shapes(experiment: Experiment, devices: int) -> tuple[dict[str, TrainState], dict]:
    """(stage -> the shapes of its train state, shapes of all weights) on the config's mesh over so
    many devices, which need not be there. Raises ValueError where a layer cannot be split so."""
    m = experiment.mesh
    with sh.traced_on(m.data, m.fsdp, m.tensor, devices):
        states = {name: StagePlan.of(experiment, name).traced_state() for name in experiment.stages}
        params = nnx.to_pure_dict(nnx.state(abstract(experiment.model)))
    return states, params


def stage_line(
    experiment: Experiment, name: str, start: StageProgress, weights: dict[str, WeightReader], own
) -> str:
    """What a stage trains, and from where.

    experiment: the config.
    name: of the stage.
    start: where it begins or goes on.
    weights: what it begins with, by path.
    own: the children of the model that it has.
    """
    if start.done:
        return "is done"
    stage = experiment.stages[name]
    if start.step is not None:
        return f"goes on from step {start.step:,} of {stage.steps:,}"
    parts = [
        f"{', '.join(child for child in children(source) if child in own)} <- {path}"
        for path, source in weights.items()
    ]
    if not parts and "previous" in stage.init:
        parts = ["the stage before"]
    whence = "; ".join(parts) or "random weights"
    return f"{stage.steps:,} steps, {shape(stage)}, trains {learns(stage)}; from {whence}"


# Weights to begin with.


def file_problems(experiment: Experiment, stages) -> list[str]:
    """What is wrong with the tokenizer that the config names, and with the weights that `stages`
    begin with."""
    problems = []
    if (
        experiment.tokenizer
        and not (pathlib.Path(experiment.tokenizer) / "tokenizer.json").is_file()
    ):
        problems.append(f"tokenizer: no tokenizer.json in {experiment.tokenizer}")
    for name in stages:
        problems += _perceptual_problems(experiment, name)
        for directory in experiment.stages[name].init:
            if directory != "previous":
                found = _source_problems(directory)
                problems += [f"stages.{name}.init: {problem}" for problem in found]
    return problems


def _perceptual_problems(experiment: Experiment, name: str) -> list[str]:
    """What is wrong with the weights of LPIPS that a stage's options name."""
    try:
        if path := experiment.stages[name].options.get("lpips"):
            read_lpips(path)
        return []
    except WeightsError as error:
        return [f"stages.{name}.options.lpips: {error}"]


def _source_problems(path: str) -> list[str]:
    """What keeps weights from being read; see `weights.source`."""
    try:
        return [f"{path}: {problem}" for problem in open_source(path).problems()]
    except (OSError, ValueError) as error:
        return [str(error)]


def init_sources(experiment: Experiment, name: str, workdir: pathlib.Path, params: dict):
    """(the sources of `stages.<name>.init` that can be opened, by path; how some do not fit the
    model). `previous` counts where it is finished. What cannot be opened is told by
    `file_problems`."""
    out = {}
    problems = []
    for path in experiment.stages[name].init:
        if path == "previous":
            path = workdir / experiment.previous(name)
            if not has_weights(path):
                continue
        try:
            source = open_source(path)
            if source.problems():
                continue
            require_fit(source, params, partly=True)
        except (OSError, ValueError) as error:
            if pathlib.Path(path).exists():
                problems.append(f"stages.{name}.init: {error}")
            continue
        wrong = other_sizes(source, experiment.model)
        if wrong:
            problems.append(
                f"stages.{name}.init: {path} does not fit this model (another "
                f"config?):{listed(wrong)}"
            )
        out[str(path)] = source
    return out, problems


def token_problems(
    experiment: Experiment,
    tokenizer: Tokenizer,
    named: str,
    starts: dict[str, StageProgress],
    weights: dict,
) -> list[str]:
    """Where the tokenizer of a run, found at `named`, is not the one that its text embeddings were
    trained with, as far as the files beside weights and checkpoints tell. weights: of
    `init_sources`, by stage."""
    found = []
    for name, sources in weights.items():
        for source in sources.values():
            found += [
                f"stages.{name}.init: {text} (this run's is {named})"
                for text in _unlike(source, tokenizer, experiment.stages[name].task)
            ]
    ours = hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()[:16]
    for name, start in starts.items():
        theirs = (start.position or {}).get("fingerprint", {}).get("tokenizer", ours)
        if theirs != ours:
            found.append(
                f"tokenizer: {named} (hash {ours}) is not the one with which {name} was trained up "
                f"to step {start.step} (hash {theirs}); put that file back"
            )
    return found


def _unlike(source: WeightReader, tokenizer: Tokenizer, task: str) -> list[str]:
    try:
        if source.config is not None:
            require_same(source.path, source.processor().tokenizer, tokenizer)
        elif task == "siglip" and "text_tower" in children(source):
            if not (source.path / "tokenizer.json").is_file():
                return [f"{source.path} has a text tower and no tokenizer.json; put it beside it"]
            require_same(source.path, Tokenizer.load(source.path), tokenizer)
        elif (
            "text_embedding" in children(source)
            and (file := source.path / "tokenizer.json").is_file()
        ):
            return moved_ids(file, tokenizer)
    except FileNotFoundError:
        pass  # there is none beside these weights: a run says so and goes on
    except ValueError as error:
        return [str(error)]
    return []
