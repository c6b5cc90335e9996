"""What goes wrong in fine-tuning though every step runs: said before the first one, or, of its losses,
after it."""

import math
from collections.abc import Callable

from janus_jax.config.lengths import by_part
from janus_jax.distributed import processes
from janus_jax.training.meter import numbers
from janus_jax.training.stage_plan import StagePlan
from janus_jax.weights.reader import WeightReader, children
from janus_jax.weights.source import open_source

LARGE = 1024  # width from which a language model is none of the toys'
# The papers' fine-tuning has 2e-5 and 4e-5 (Table 1, and Table 2 of arXiv 2501.17811).
HIGHEST = {"janus": 2e-4, "lora": 2e-3}
ABOVE = 1.0  # nats that a first loss may lie above that of guessing; random heads stay below
HEADS = {"text": "text_head", "understanding": "text_head", "generation": "image_head"}


def finetuning_warnings(plan: StagePlan, weights: dict[str, WeightReader]) -> list[str]:
    """What users of a stage that goes on from a whole Janus report to have lost by it, a line each.

    weights: what the stage begins with, by path.
    """
    stage = plan.stage
    if plan.stage.task not in HIGHEST or all(w.config is None for w in weights.values()):
        return []
    where = f"stages.{plan.name}"
    found = []
    drawn = "generation" in plan.keeps and stage.ratio.generation > 0
    read = "understanding" in plan.keeps and stage.ratio.understanding > 0
    if drawn and not stage.condition_dropout:
        found.append(
            f"{where}.condition_dropout is 0: guidance compares each drawing with one of no prompt, "
            "and that is never learned here, so guided drawings get worse; the papers' is 0.1"
        )
    whole = stage.task == "janus" and "transformer" in stage.trainable
    if whole and drawn != read:
        lost, kept = ("answers", "understanding") if drawn else ("drawings", "generation")
        found.append(
            f"{where} trains the whole transformer and no {kept}: its {lost} get worse meanwhile; mix "
            f"some in ({where}.ratio.{kept}), or train with task lora"
        )
    rate = max(by_part(stage.optim.learning_rate).values())
    if plan.model.transformer.width >= LARGE and rate > HIGHEST[stage.task]:
        found.append(
            f"{where}.optim.learning_rate is {rate:g}: the papers fine-tune at 2e-5 and 4e-5; at such "
            "a rate drawings turn to noise before the loss tells"
        )
    return found


def with_first_losses(plan: StagePlan, step: Callable, init: list, say: Callable) -> Callable:
    """The stage's compiled step, whose very first call warns of losses above those of guessing: the
    weights that the stage begins with do not fit what they are given.

    plan: the stage, of any task.
    step: (state, batch) -> (state, metrics), jitted.
    init: the weights directories of its `init`.
    say: hears the warnings; the first process's count.
    """
    if not (init and plan.task.PACKS) or hasattr(plan.task, "ENCODER"):
        return step  # a loss of pairs is none of tokens
    first = [True]  # afterwards nothing waits for the device

    def stepped(state, batch):
        begins = bool(first) and int(state.step) == 0
        first.clear()
        state, metrics = step(state, batch)
        for line in _above_guessing(plan, numbers(metrics), init) if begins else ():
            say(f"WARNING: {line}")
        return state, metrics

    return stepped


def _above_guessing(plan: StagePlan, losses: dict[str, float], init: list) -> list[str]:
    """A line for each kind of example whose loss is above ABOVE and whose head is given."""
    text = plan.model.transformer.vocabulary
    ids = {
        "text": text,
        "understanding": text,
        "generation": plan.model.generation_encoder.codebook_size,
    }
    far = [kind for kind, n in ids.items() if losses.get(f"{kind}_loss", 0.0) > math.log(n) + ABOVE]
    if not far or not processes.is_lead():
        return []
    try:
        given = {child for path in init for child in children(open_source(path))}
    except (OSError, ValueError):  # a stage that goes on from step 0 reads its init no more
        return []
    return [
        f"{plan.name}: the first step's {kind}_loss is {losses[f'{kind}_loss']:.2f}, and guessing one "
        f"of {ids[kind]:,} ids costs {math.log(ids[kind]):.2f}: the weights of init do not fit what "
        "they are given; compare tokenizer, template and model with those that they were trained with"
        for kind in far
        if HEADS[kind] in given
    ]
