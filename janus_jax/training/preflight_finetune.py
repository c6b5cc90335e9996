"""What goes wrong in fine-tuning though every step runs: said before the first one."""

from janus_jax.config.lengths import by_part
from janus_jax.training.stage_plan import StagePlan
from janus_jax.weights.reader import WeightReader

LARGE = 1024  # width from which a language model is none of the toys'
# The papers' fine-tuning has 2e-5 and 4e-5 (Table 1, and Table 2 of arXiv 2501.17811).
HIGHEST = {"janus": 2e-4, "lora": 2e-3}


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
