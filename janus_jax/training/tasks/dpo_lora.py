"""Task dpo with low-rank pairs of matrices beside a frozen Janus (task lora): its reference is the
Janus without them, and costs no memory."""

from janus_jax.config.schema import Experiment
from janus_jax.model.low_rank_layers import with_pairs
from janus_jax.training import lora_options, task
from janus_jax.training.preference_options import preference_problems
from janus_jax.training.stage_plan import StagePlan

dpo = task.load("dpo")
lora = task.load("lora")
PACKS = True
NARROWS = True
TEACHERS = ()
OPTIONS = {name: x for name, x in lora_options.OPTIONS.items() if name != "keep"} | dpo.OPTIONS
VALIDATES = dpo.VALIDATES
ENCODER = dpo.ENCODER
without = dpo.without
for_devices = dpo.for_devices
batches = dpo.batches
batch_shapes = dpo.batch_shapes
read_first = dpo.read_first
init_state = lora.init_state
init_random = lora.init_random
export = lora.export


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    options = OPTIONS | stage.options
    found = preference_problems(experiment, name, options)
    if stage.trainable and not options["reference"]:
        found.append(
            f"stages.{name}.trainable is {stage.trainable}: the reference is the Janus without its "
            "low-rank pairs, and what learns whole would move with the policy; set it to (), or name "
            "a stored options.reference"
        )
    return found or lora.problems(experiment, name)


def step(plan: StagePlan):
    return dpo.preference_step(plan, with_pairs, lambda model: model)


def validate(plan: StagePlan):
    return dpo.preference_sums(plan, with_pairs, lambda model: model)
