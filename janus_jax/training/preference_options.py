"""What of a stage that learns from pairs cannot be, told before anything compiles."""

from janus_jax.common.text import near
from janus_jax.config.held_out import holdout_of
from janus_jax.config.schema import Experiment
from janus_jax.training.preference_loss import LOSSES, needs_reference


def preference_problems(experiment: Experiment, name: str, options: dict) -> list[str]:
    """options: all of the stage's, with defaults. A line each."""
    stage = experiment.stages[name]
    path = f"stages.{name}"
    loss = options["loss"]
    if loss not in LOSSES:
        return [f"{path}.options.loss is {loss!r}: unknown{near(loss, LOSSES)}"]
    found = []
    if not options["beta"]:
        found.append(
            f"{path}.options.beta is 0: no pair would move anything; give 0.1, as the paper of dpo, "
            "or 2, as that of simpo"
        )
    if options["gamma"] and loss != "simpo":
        found.append(
            f"{path}.options.gamma is {options['gamma']}, and loss is {loss!r}: simpo alone has a "
            "margin; leave it out"
        )
    if options["reference"] and not needs_reference(options):
        found.append(
            f"{path}.options.reference is {options['reference']!r}, and loss is {loss!r}, which has no "
            "reference; leave it out"
        )
    if options["reference"]:
        found += _stored_problems(experiment, name)
    if not stage.init:
        found.append(
            f"{path}.init is empty: preferences change what a model draws and answers already; name the "
            "weights of one, such as `quickstart` or deepseek-ai/Janus-Pro-1B"
        )
    if stage.supervise != "answers":
        found.append(
            f"{path}.supervise is {stage.supervise!r}: what is preferred are answers, and their "
            "questions' words would count with them; set it to 'answers'"
        )
    if stage.rows and stage.ratio.generation and stage.rows.generation_images < 2:
        found.append(
            f"{path}.rows.generation_images is {stage.rows.generation_images}: a pair of pictures "
            "stands in one row, which must have room for 2"
        )
    return found + _model_problems(experiment) + _data_problems(experiment, name)


def _stored_problems(experiment: Experiment, name: str) -> list[str]:
    """A stored log-probability is of one prompt, and chance would make another of it."""
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = []
    for line, d in experiment.draws(name).items():
        if d.kind == "generation" and len(d.prompt) > 1:
            found.append(
                f"data.datasets.{line}.prompt has {len(d.prompt)} templates, of which each visit takes one "
                f"by chance, and {path}.options.reference holds one number a pair; give one, or leave "
                "reference out"
            )
        if isinstance(holdout := holdout_of(experiment, line), str) and holdout:
            found.append(
                f"data.datasets.{line}.holdout is {holdout!r}, and {path}.options.reference has no numbers "
                "of records that lie apart; hold out a share, or leave reference out"
            )
    return found + [
        f"{path}.{field} is {getattr(stage, field)}, and options.reference names log-probabilities of "
        "whole prompts; set it to 0, or leave reference out for frozen weights"
        for field in ("condition_dropout", "first_sentence")
        if getattr(stage, field)
    ]


def _model_problems(experiment: Experiment) -> list[str]:
    """Pictures that the decoder does not draw id by id, or that are not read whole, have no pairs
    yet."""
    model = experiment.model
    wrong = {
        f"model.drawing is {model.drawing!r}": model.drawing != "causal",
        f"model.image_head is {model.image_head!r}": model.image_head != "softmax",
        f"model.generation_encoder.sizes is {model.generation_encoder.sizes}": bool(
            model.generation_encoder.sizes
        ),
        f"model.understanding_encoder.tiles is {model.understanding_encoder.tiles}": (
            model.understanding_encoder.tiles > 1
        ),
        f"model.senses has {', '.join(model.senses)}": bool(model.senses),
        "model.understanding or model.generation is of an ablation": not model.is_janus,
    }
    return [
        f"{told}: pairs are of pictures that are drawn id by id at one size, and read whole; leave it "
        "at its default"
        for told, is_so in wrong.items()
        if is_so
    ]


def _data_problems(experiment: Experiment, name: str) -> list[str]:
    lines = experiment.draws(name).items()
    return [
        f"data.datasets.{line}.image_ids is {d.image_ids!r}: they hold one picture a record, and a pair "
        "has two; leave it out, so that pictures are encoded as they are read"
        for line, d in lines
        if d.image_ids
    ]
