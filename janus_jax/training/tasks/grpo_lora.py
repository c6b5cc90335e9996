"""Task grpo with low-rank pairs of matrices beside a frozen Janus (task lora): it draws and answers with
the pairs merged into their kernels, and its reference is the Janus without them, which costs no
memory."""

from janus_jax.config.schema import Experiment
from janus_jax.training import grpo_options, lora_options, task

grpo = task.load("grpo")
lora = task.load("lora")
PACKS = True
ROLLS = True
NARROWS = True
TEACHERS = ()
OPTIONS = {name: x for name, x in lora_options.OPTIONS.items() if name != "keep"} | grpo.OPTIONS
VALIDATES = grpo.VALIDATES
without = grpo.without
for_devices = grpo.for_devices
step = grpo.step
validate = grpo.validate
batches = grpo.batches
batch_shapes = grpo.batch_shapes
likely = grpo.likely
read_first = grpo.read_first
init_state = lora.init_state
init_random = lora.init_random
export = lora.export


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    options = OPTIONS | stage.options
    found = grpo_options.grpo_problems(experiment, name)
    if options["dropout"]:
        found.append(
            f"stages.{name}.options.dropout is {options['dropout']}: outputs are drawn with all of the "
            "pairs, and the ratio to what drew them would be of another policy; set it to 0"
        )
    if stage.trainable and options["kl"] and not options["reference"]:
        found.append(
            f"stages.{name}.trainable is {stage.trainable}: the reference is the Janus without its "
            "low-rank pairs, and what learns whole would move with the policy; set it to (), name "
            "weights in options.reference, or set options.kl to 0"
        )
    return found + lora_options.lora_problems(experiment, name)
