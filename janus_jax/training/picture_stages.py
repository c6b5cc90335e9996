"""What stages that train a tokenizer on pictures alone, without rows of tokens, have in common."""

from janus_jax.config.schema import Experiment
from janus_jax.training.tokenizer_options import option_problems


def field_problems(experiment: Experiment, name: str) -> list[str]:
    """Which fields and options of such a stage cannot be used, a line each."""
    stage = experiment.stages[name]
    task = stage.task
    path = f"stages.{name}"
    found = []
    shares = vars(stage.ratio)
    if any(shares.values()) and (shares["understanding"] or shares["text"]):
        asked = ":".join(f"{share:g}" for share in shares.values())
        found.append(
            f"{path}.ratio is {asked}: task {task} learns from images of generation alone; set it "
            "to 0:0:1"
        )
    if stage.rows is not None:
        found.append(
            f"{path}.rows: task {task} packs no rows, a step has batch_size images; leave it out"
        )
    unused = {"accumulate": 1, "supervise": "all", "condition_dropout": 0.1, "first_sentence": 0.25}
    found += [
        f"{path}.{field} is {getattr(stage, field)!r}: task {task} reads no such field; leave it out"
        for field, default in unused.items()
        if getattr(stage, field) != default
    ]
    found += option_problems(stage, path, experiment.model.generation_encoder.image_size)
    if name == list(experiment.stages)[-1] and experiment.evaluation.count:
        found.append(
            f"evaluation.count is {experiment.evaluation.count}: the last stage, {name}, hands on "
            f"no whole Janus, which alone draws and answers; set it to 0"
        )
    return found


def code_problems(experiment: Experiment, name: str) -> list[str]:
    """Whether the model has the VQ tokenizer that such a stage trains."""
    latent = experiment.model.generation_encoder.latent
    depth = experiment.model.generation_encoder.depth
    task = experiment.stages[name].task
    if task == "semantic" and depth > 1:
        return [
            f"stages.{name}.task is semantic and model.generation_encoder.depth {depth}: the semantic "
            "decoder reads one code a token; set task to vq, or depth to 1"
        ]
    if task == "semantic" and experiment.model.drawing == "scales":
        return [
            f"stages.{name}.task is semantic and model.drawing 'scales': its decoder reads the codes of one "
            "grid; set drawing to 'causal', and leave model.generation_encoder.scales out"
        ]
    return [] if latent == "vq" else [
        f"stages.{name}.task is {task} and model.generation_encoder.latent {latent!r}: it trains a VQ "
        "tokenizer's codes, and a KL one has none; set task to kl, or latent to 'vq'"
    ]  # fmt: skip
