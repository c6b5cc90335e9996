"""Whether a stage that learns from a frozen part of the model, or through one, gets it, at the size
that it needs."""

import math

from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState
from janus_jax.weights import table
from janus_jax.weights.reader import WeightReader, children
from janus_jax.weights.source import open_source


def missing_teachers(
    plan: StagePlan, sources: dict[str, WeightReader], states: dict[str, TrainState]
) -> list[str]:
    """Why a stage would have nobody to learn from, or nothing to see by, a line each.

    plan: of the stage.
    sources: the weights that it begins with, by path; of `previous` only where that is done.
    states: the shapes of each stage's state, which say what `previous` will hand on.
    """
    held = {child for source in sources.values() for child in children(source)}
    if "previous" in plan.stage.init:
        before = StagePlan.of(plan.experiment, plan.experiment.previous(plan.name))
        held |= states[before.name].params.keys() - set(before.task.TEACHERS)
    named = ", ".join(plan.stage.init) or "empty"
    of_task = f"the teacher of task {plan.stage.task}; name weights that do, such as weights/siglip_l16_384"
    wanted = dict.fromkeys(plan.task.TEACHERS, of_task)
    model = plan.model
    if plan.task.PACKS and not model.is_janus:
        seen = (
            f"by which this model reads pictures (model.understanding is {model.understanding!r}, "
            f"model.generation {model.generation!r}): random ones mean nothing, and no stage of this task "
            "trains them; name what task vq or semantic hands on"
        )
        wanted |= {
            c: seen for c in ("generation_encoder", "semantic_decoder") if c in model.children
        }
    return [
        f"stages.{plan.name}.init ({named}) holds no {child}, {why}"
        for child, why in wanted.items()
        if child not in held
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
        if tokens is None or (tokens, patch) == (own.tokens, own.patch_size):
            continue
        side = math.isqrt(tokens) * patch
        found.append(
            f"stages.{plan.name}.init: the teacher in {path} reads pictures of {side} pixels in "
            f"patches of {patch}, model.understanding_encoder {own.image_size} in {own.patch_size}; "
            f"set its image_size, and model.generation_encoder's, to {side}, its patch_size to "
            f"{patch}, with multipliers for codes of {patch} pixels; or name another teacher"
        )
    return found
