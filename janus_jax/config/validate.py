"""Which values a config may not have. Everything impossible is named at once, before anything
compiles."""

import dataclasses
import importlib
import math

from janus_jax.config import evaluation
from janus_jax.config.schema import FORMATS, FORMS, Dataset, Experiment, Stage
from janus_jax.config.sizes import (
    divides,
    divisors_near,
    finite,
    is_size,
    model_problems,
    named,
    positive,
)
from janus_jax.config.steps import gaps
from janus_jax.model import config as model_config
from janus_jax.model.batch import TASKS
from janus_jax.model.sharding import mesh_shape


def value_problems(experiment: Experiment, devices: int) -> list[str]:
    """Every value that is impossible, by itself, beside the others, or on so many devices."""
    problems = model_problems(experiment.model, "model.") + _mesh_problems(experiment, devices)
    for name, stage in experiment.stages.items():
        if name in evaluation.TAKEN:
            problems.append(
                f"stages.{name}: the work directory uses this name itself; call the stage otherwise"
            )
        first = experiment.previous(name) is None
        problems += _stage_problems(experiment, f"stages.{name}", stage, first)
    if not experiment.stages:
        problems.append("stages: there is none; name at least one stage")
    problems += _data_problems(experiment)
    problems += finite("checkpoints", experiment.checkpoints, ("keep_every",))
    if experiment.checkpoints.keep < 2:
        problems.append(
            f"checkpoints.keep is {experiment.checkpoints.keep}: must be at least 2, of which one "
            "may prove damaged"
        )
    for field in ("seed", "profile"):
        value = getattr(experiment, field)
        problems += [f"{field} is {value}: must be 0 or more"] if value < 0 else []
    return problems


def _mesh_problems(experiment: Experiment, devices: int) -> list[str]:
    m = experiment.mesh
    llm = experiment.model.transformer
    try:
        _, fsdp, tensor = mesh_shape(m.data, m.fsdp, m.tensor, devices)
    except ValueError as error:
        return [str(error)]
    problems = []
    tower = experiment.model.understanding_encoder
    semantic = experiment.model.semantic_decoder
    own = experiment.model.children
    if any(stage.task in ("semantic", "siglip") for stage in experiment.stages.values()):
        own += ("understanding_encoder",)  # teaches the one and is learned by the other
    for box, obj, names in (
        ("transformer", llm, ("heads", "width", "mlp_width", "vocabulary")),
        ("understanding_encoder", tower, ("heads", "width", "mlp_width")),
        ("semantic_decoder", semantic, ("heads", "width", "mlp_width")),
        ("generation_encoder", experiment.model.generation_encoder, ("codebook_size",)),
    ):
        for n in names if box in own else ():
            problems += divides(
                f"model.{box}.{n}", getattr(obj, n), tensor, "mesh.tensor =", "mesh.tensor"
            )
    if experiment.model.senses:
        senses = importlib.import_module("janus_jax.config.senses")
        problems += senses.mesh_problems(experiment.model, tensor)
    both = "mesh.fsdp * mesh.tensor"
    for n in ("width", "mlp_width"):
        problems += divides(
            f"model.transformer.{n}", getattr(llm, n), fsdp * tensor, f"{both} =", both
        )
    for path, value in (
        ("model.understanding_encoder.width", tower.width),
        ("model.image_head_width", experiment.model.image_head_width),
    ):
        problems += divides(path, value, fsdp, "mesh.fsdp =", "mesh.fsdp")
    return problems


def batch_problems(experiment: Experiment, name: str, devices: int, packs: bool) -> list[str]:
    """How a stage's batch cannot be split over the devices.

    experiment: the config.
    name: of the stage.
    devices: how many.
    packs: whether its task packs rows; otherwise batch_size images are split.
    """
    m = experiment.mesh
    stage = experiment.stages[name]
    path = f"stages.{name}"
    try:
        data, fsdp, _ = mesh_shape(m.data, m.fsdp, m.tensor, devices)
    except ValueError:
        return []  # told already
    why = f"mesh.data * mesh.fsdp = {data} * {fsdp} ="
    if not packs:
        return divides(f"{path}.batch_size", stage.batch_size, data * fsdp, why)
    if stage.rows is None:
        return []  # told already
    count = stage.rows.count
    n = stage.accumulate
    problems = divides(f"{path}.rows.count", count, data * fsdp, why)
    problems = [f"{text} (for batch_size {stage.batch_size})" for text in problems]
    share = count // (data * fsdp)
    if n > 0 and count % (data * fsdp) == 0 and share % n:
        problems.append(
            f"{path}.accumulate is {n}: must divide the rows of a share, {path}.rows.count / "
            f"(mesh.data * mesh.fsdp) = {count} / {data * fsdp} = {share}; nearest: "
            f"{divisors_near(share, n)}"
        )
    return problems


def _stage_problems(experiment: Experiment, path: str, stage: Stage, first: bool) -> list[str]:
    counts = ("steps", "batch_size", "checkpoint_every", "log_every", "accumulate")
    problems = positive(path, stage, counts)
    own = experiment.model.children
    problems += finite(f"{path}.spikes", stage.spikes, ("sigma",))
    if stage.spikes.window < 2:
        problems.append(f"{path}.spikes.window is {stage.spikes.window}: must be at least 2 steps")
    problems += [
        p
        for name in stage.trainable
        for p in named(f"{path}.trainable", name, (*model_config.CHILDREN, *own))
    ]
    if not stage.trainable and stage.task not in ("lora", "dpo_lora", "grpo_lora"):
        problems.append(f"{path}.trainable is empty: nothing would be learned")
    problems += named(f"{path}.supervise", stage.supervise, ("all", "answers"))
    problems += [
        f"{path}.{n} is {getattr(stage, n)}: a probability lies in [0, 1]"
        for n in ("condition_dropout", "first_sentence")
        if not 0 <= getattr(stage, n) <= 1
    ]
    if first and "previous" in stage.init:
        problems.append(f"{path}.init names 'previous', but no stage comes before it")
    shares = dataclasses.asdict(stage.ratio)
    problems += finite(f"{path}.ratio", stage.ratio, shares)
    if not any(shares.values()):
        fields = ", ".join(f"{path}.ratio.{n}" for n in TASKS)
        problems.append(f"{fields} are all 0: no data would be read; give at least one a share")
    r = stage.rows
    model = experiment.model
    if r is None:
        return problems
    problems += positive(f"{path}.rows", r, ("count", "length"))
    problems += finite(f"{path}.rows", r, ("understanding_images", "generation_images"))
    tower = model.understanding_encoder
    sized = min(tower.patch_size, tower.pixel_shuffle) > 0 and model.generation_encoder.multipliers
    vq = model.generation_encoder
    known = all(is_size(size, vq.stride) for size in vq.sizes)
    most = {
        "understanding_encoder": lambda: tower.tokens,
        "generation_encoder": lambda: vq.most_tokens if known else vq.tokens,
    }
    for task, slots, box, pieces in (
        ("understanding", "understanding_images", "understanding_encoder", tower.pieces),
        ("generation", "generation_images", "generation_encoder", 1),
    ):  # fmt: skip
        needed = pieces * most[box]() + 8 if sized else 0
        tiled = f" (model.{box}.tiles makes up to {pieces} of a picture)" if pieces > 1 else ""
        if shares[task] > 0 and getattr(r, slots) < pieces:
            problems.append(
                f"{path}.rows.{slots} is {getattr(r, slots)}: ratio.{task} needs at least {pieces}{tiled}"
            )
        if shares[task] > 0 and r.length < needed:
            problems.append(
                f"{path}.rows.length is {r.length}: one picture of {task} needs at least {needed}{tiled}"
            )
    if shares["understanding"] > 0 and model.senses:
        senses = importlib.import_module("janus_jax.config.senses")
        problems += senses.row_problems(model, r.length, path)
    return problems


def _data_problems(experiment: Experiment) -> list[str]:
    data = experiment.data
    problems = finite("data", data, ("workers",))
    if not 0 <= data.max_bad_fraction <= 1:
        problems.append(f"data.max_bad_fraction is {data.max_bad_fraction}: a share lies in [0, 1]")
    stages = list(experiment.stages)
    for name, d in data.datasets.items():
        path = f"data.datasets.{name}"
        problems += named(f"{path}.kind", d.kind, TASKS)
        problems += named(f"{path}.format", d.format, ("", *FORMATS))
        problems += named(f"{path}.form", d.form, ("", *FORMS))
        if not d.continues and d.kind != "text":
            problems.append(
                f"{path}.continues is False: texts alone go on in later rows, its kind is {d.kind}"
            )
        problems += finite(path, d, ("weight", "min_side"))
        if not math.isfinite(d.min_score):
            problems.append(f"{path}.min_score is {d.min_score}: must be a finite number")
        if not d.path:
            problems.append(f"{path}.path is empty: name a file, a glob, a folder, or shapes:")
        if d.min_score and not d.score:
            problems.append(f"{path}.min_score is {d.min_score}: name its field in {path}.score")
        if d.prompt and d.kind == "text":
            problems.append(f"{path}.prompt: kind text neither asks nor draws; leave it out")
        problems += [p for stage in d.stages for p in named(f"{path}.stages", stage, stages)]
        if d.image_ids and d.kind != "generation":
            problems.append(
                f"{path}.image_ids is {d.image_ids!r}: only pictures to draw have ids, its kind is "
                f"{d.kind}"
            )
        problems += _holdout_problems(path, d)
        if not 0 <= d.source_ids <= 1:
            problems.append(f"{path}.source_ids is {d.source_ids}: a probability lies in [0, 1]")
        if len(d.edit_dropout) != 3 or not (min(d.edit_dropout) >= 0 and sum(d.edit_dropout) <= 1):
            problems.append(
                f"{path}.edit_dropout is {d.edit_dropout}: give three probabilities, of words, pictures "
                "and both, whose sum is at most 1"
            )
        if d.steps and not (len(d.steps) == 2 and 0 <= d.steps[0] < d.steps[1]):
            problems.append(
                f"{path}.steps is {d.steps}: must be (first, end), the first step and the one "
                "after the last"
            )
    if problems:
        return problems
    for name, stage in experiment.stages.items():
        lines = data.drawn_by(name)
        ratio = {kind: share for kind, share in vars(stage.ratio).items() if share > 0}
        problems += [f"stages.{name}: {gap}" for gap in gaps(lines, ratio, stage.steps)]
    return problems


def _holdout_problems(path: str, d: Dataset) -> list[str]:
    held = d.holdout
    if isinstance(held, str):
        wrong = held and d.image_ids
        why = "with image_ids, which what lies there has none of; give a share, such as 0.1"
        return [f"{path}.holdout is {held!r}: {why}"] if wrong else []
    if 0 <= held < 1 or (held >= 1 and held % 1 == 0):  # no NaN, not infinite
        return []
    return [
        f"{path}.holdout is {held:g}: give a share below 1, such as 0.1, a whole number of records, "
        "or the path of those that are held out"
    ]
