"""Whether a stage that learns from a frozen part of the model, or through one, gets it, at the size
that it needs."""

import math

from janus_jax.model.config import CHILDREN
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState
from janus_jax.weights import table
from janus_jax.weights.reader import WeightReader, children
from janus_jax.weights.source import open_source


def held_by(
    plan: StagePlan, sources: dict[str, WeightReader], states: dict[str, TrainState]
) -> set:
    """The children that a stage is given.

    plan: of the stage.
    sources: the weights that it begins with, by path; of `previous` only where that is done.
    states: the shapes of each stage's state, which say what `previous` will hand on.
    """
    held = {child for source in sources.values() for child in children(source)}
    if "previous" in plan.stage.init:
        before = StagePlan.of(plan.experiment, plan.experiment.previous(plan.name))
        handed_on = states[before.name].params.keys() | set(before.without)
        held |= handed_on - set(before.task.TEACHERS)
    return held


def missing_teachers(plan: StagePlan, held: set, states: dict[str, TrainState]) -> list[str]:
    """Why a stage would have nobody to learn from, nothing to see by, or not what a stage before it
    has learned, a line each. held: of `held_by`; states: as there."""
    named = ", ".join(plan.stage.init) or "empty"
    where = f"stages.{plan.name}.init ({named}) holds no"
    model = plan.model
    frozen = [child for child in states[plan.name].frozen if child in CHILDREN]
    wanted = {}
    if plan.task.PACKS and not model.is_janus:
        seen = (
            f"by which this model reads pictures (model.understanding is {model.understanding!r}, "
            f"model.generation {model.generation!r}): random ones mean nothing, and no stage of this task "
            "trains them; name what task vq, kl or semantic hands on"
        )
        read = ("generation_encoder", "semantic_decoder")
        wanted = {child: seen for child in read if child in model.children}
    elif not plan.task.PACKS:
        still = "which this stage leaves as it is: random, it would be noise; train it, or name weights that hold it"
        wanted = dict.fromkeys(frozen, still)
    wanted |= dict.fromkeys(
        plan.task.TEACHERS,
        f"the teacher of task {plan.stage.task}; name weights that do, such as weights/siglip_l16_384",
    )
    beside = "beside which its pairs learn: random, it would be noise; name weights that hold it"
    wanted |= dict.fromkeys(states[plan.name].trainable.get("lora", ()), beside)
    own = {*states[plan.name].params, *plan.without}
    names = list(plan.experiment.stages)
    for name in names[: names.index(plan.name)] if "previous" in plan.stage.init else ():
        for child in plan.experiment.stages[name].trainable:
            if child in own:
                wanted[child] = (
                    f"which {name} trains: the stage before hands on its own parts alone; add WORKDIR/{name} "
                    "to it"
                )
    return [f"{where} {child}, {why}" for child, why in wanted.items() if child not in held]


def random_eyes(plan: StagePlan, held: set, states: dict[str, TrainState]) -> list[str]:
    """The encoders that a stage of Janus reads and is not given, and no stage trains, a warning
    each."""
    learned = {child for stage in plan.experiment.stages.values() for child in stage.trainable}
    reads = {"understanding_encoder": "understanding", "generation_encoder": "generation"}
    reads |= {f"{name}_encoder": "understanding" for name in plan.model.senses}
    random = [
        child
        for child, kind in reads.items()
        if kind in plan.keeps
        and getattr(plan.stage.ratio, kind)
        and child in states[plan.name].frozen
        and child not in held | learned
    ]
    if not plan.task.PACKS:
        return []
    return [
        f"stages.{plan.name}: {child} is frozen and in no weights of init, so it stays random: what it "
        f"says of {'a picture' if child in CHILDREN else 'its inputs'} means nothing. Name weights "
        "that hold it"
        for child in random
    ]


def other_teachers(plan: StagePlan) -> list[str]:
    """What to change for a teacher whose pictures or patches have another size, a line each. That
    its weights do not fit is told with all weights."""
    if "understanding_encoder" not in plan.task.TEACHERS:
        return []
    own = plan.model.understanding_encoder
    found = []
    for path in plan.stage.init:
        try:
            leaves = {} if path == "previous" else open_source(path).leaves
        except (OSError, ValueError):
            continue  # told with all weights
        sizes = table.fields({name: shape for name, (shape, _) in leaves.items()})
        tokens, patch = (sizes.get(f"understanding_encoder.{x}") for x in ("tokens", "patch_size"))
        if tokens is None or (tokens, patch) == (own.patches, own.patch_size):
            continue
        side = math.isqrt(tokens) * patch
        found.append(
            f"stages.{plan.name}.init: the teacher in {path} reads pictures of {side} pixels in "
            f"patches of {patch}, model.understanding_encoder {own.image_size} in {own.patch_size}; "
            f"set its image_size, and model.generation_encoder's, to {side}, its patch_size to "
            f"{patch}, with multipliers for codes of {patch} pixels; or name another teacher"
        )
    return found
