"""Training the VQ tokenizer (LlamaGen, arXiv 2406.06525, section 2.1): it learns to draw back what
it sees.

The loss is tokenizer_loss.py's. Where a discriminator takes part, one pass of the tokenizer serves
both: one step updates both, each with the stage's numbers of the optimiser, each clipped by itself.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.config.schema import Experiment
from janus_jax.data.images import generation_image
from janus_jax.distributed import arrays
from janus_jax.model.config import JanusConfig
from janus_jax.model.keys import Keys
from janus_jax.training import (
    codebook_use,
    discriminators,
    optim,
    picture_stages,
    stage_data,
    tokenizer_data,
    tokenizer_options,
)
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, new_state, update
from janus_jax.training.tokenizer_loss import adversarial, tokenizer_terms
from janus_jax.training.vq_encoder import tokenizer_of, warn_of_rounding
from janus_jax.weights.load import export as export_weights

PACKS = False
NARROWS = False
TEACHERS = ()
VALIDATES = ("loss", "reconstruction", "perceptual")
OPTIONS = tokenizer_options.OPTIONS
LEARNS = ("generation_encoder", "discriminator")


class Tokenizer(nnx.Module):
    """What a stage's state holds. `generation_encoder` is named as in `Janus`, so that its weights
    are handed on by name; a later stage of this task takes `discriminator` too. `ema` is the moving
    average of the tokenizer's weights, set with the first update."""

    def __init__(self, model: JanusConfig, options: dict, rngs):
        config = model.generation_encoder
        self.generation_encoder = tokenizer_of(config, rngs)
        self.use = codebook_use.Use(config.codebook_size)
        if options["ema"]:
            self.ema = tokenizer_of(config, rngs)
        if kind := options["discriminator"]:
            size = int(options["discriminator_width"]), int(options["discriminator_layers"])
            self.discriminator = discriminators.build(kind, config.image_size, *size, rngs)


def vq_step(
    state: TrainState, batch: dict, tx, options: dict, also=None
) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in stages.py. The metric `loss` is without the
    discriminator's part, whose size says nothing about the pictures.

    Args:
        state: the train state.
        batch: see `tokenizer_terms`.
        tx: the optimiser of all that learns.
        options: of the task.
        also: (model, Painted, options) -> (further summands of the loss, by name; metrics).
    """
    step = state.step + 1

    def loss(model):
        tokenizer = model.generation_encoder
        terms, painted = tokenizer_terms(tokenizer, batch, options)
        more, told = also(model, painted, options) if also else ({}, {})
        terms |= more
        total = sum(terms.values())
        metrics = {"loss": total, **terms, **told, "ids": painted.ids}
        if not options["discriminator"]:
            return total, metrics
        judged = adversarial(model.discriminator, tokenizer, batch, painted, step, options)
        gain, other, more, metrics["statistics"] = judged
        return total + gain + other, metrics | more

    new, metrics = update(state, tx, loss)
    good = new.nonfinite_updates == state.nonfinite_updates
    trainable = new.trainable
    idle = jnp.bool_(False)
    if options["discriminator"]:
        began = step >= options["discriminator_start"]
        idle = began & (metrics["discriminator_loss"] < codebook_use.ZERO)
        weights = trainable["discriminator"]
        moved = discriminators.remembered(weights, *metrics.pop("statistics"))
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, weights)
        trainable = trainable | {"discriminator": kept}
    use, counts = codebook_use.counted(state.frozen["use"], metrics.pop("ids"), step, idle)
    frozen = state.frozen | {"use": use}
    if decay := options["ema"]:
        # It begins with the weights before the first update.
        before = state.trainable["generation_encoder"]
        first = state.step == state.nonfinite_updates

        def mix(ema, before, now):
            mixed = decay * jnp.where(first, before, ema) + (1 - decay) * now
            return jnp.where(good, mixed, ema)

        frozen["ema"] = jax.tree.map(mix, frozen["ema"], before, trainable["generation_encoder"])
    return new.replace(trainable=trainable, frozen=frozen), metrics | counts


# The task.


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = picture_stages.code_problems(experiment, name)
    if stage.trainable != ("generation_encoder",):
        found.append(
            f"{path}.trainable is {stage.trainable}: task vq trains the tokenizer alone; set it to "
            f"('generation_encoder',)"
        )
    return found + picture_stages.field_problems(experiment, name)


def without(experiment: Experiment, name: str) -> tuple[str, ...]:
    return ()  # its state has no other child in the first place


def init_state(key, model: JanusConfig, tx, trainable=(), without=(), options=OPTIONS):
    """Random weights of the tokenizer, and of what its options ask for beside it."""
    graphdef, params = nnx.split(Tokenizer(model, options, Keys(key)))
    params = nnx.to_pure_dict(params)
    learns = {name: params.pop(name) for name in LEARNS if name in params}
    return new_state(graphdef, learns, params, tx)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(key, model: JanusConfig, names: tuple[str, ...], options: tuple) -> dict:
    drawn = nnx.to_pure_dict(nnx.state(Tokenizer(model, dict(options), Keys(key))))
    if "ema" in drawn:  # set with the first update
        drawn["ema"] = jax.tree.map(jnp.zeros_like, drawn["ema"])
    return {name: drawn[name] for name in names}


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    return _draw(jax.random.key(seed), model, names, tuple(options.items()))


def for_devices(plan: StagePlan, say) -> StagePlan:
    warn_of_rounding(say)
    return plan


def step(plan: StagePlan):
    tx = optim.make(plan.stage.optim, plan.stage.steps, each=True)
    return functools.partial(vq_step, tx=tx, options=plan.options)


def validate(plan: StagePlan):
    def sums(state, batch):
        terms, _ = tokenizer_terms(state.model().generation_encoder, batch, plan.options)
        means = {name: terms[name] for name in VALIDATES if name in terms}
        n = jnp.float32(len(batch["images"]))
        return {
            name: (mean * n, n) for name, mean in {"loss": sum(terms.values()), **means}.items()
        }

    return sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """Images by (seed, step) alone, this process's part of each step's."""
    images = tokenizer_data.open_pictures(plan, sources, workdir, say)
    constant = tokenizer_data.constants(plan, say)
    part = {"images": plan.stage.batch_size / jax.process_count()}
    next_batch = lambda i: (arrays.put_batch({"images": images[i]}) | constant, part)
    return stage_data.StageData(
        next_batch, images.stats, images.mixture, alarms=codebook_use.ALARMS
    )


def batch_shapes(plan: StagePlan) -> dict:
    return tokenizer_data.picture_shapes(plan)


def read_first(plan: StagePlan, processor):
    side = plan.model.generation_encoder.image_size
    # Training reads the image alone: a record whose text cannot be used is no fault here.
    return lambda line, source, index: (
        f"picture of {generation_image(source.image(index), side).shape[0]} pixels"
    )


def export(plan: StagePlan, directory, params: dict, processor):
    """The tokenizer, with its discriminator for a stage that goes on; and, in a directory of its own
    beside it, `<stage>.ema`, the averaged weights as a tokenizer."""
    own = {name: params[name] for name in LEARNS if name in params}
    if "ema" in params:
        average = {"generation_encoder": params["ema"]}
        export_weights(directory.with_name(f"{plan.name}.ema"), average, part_of=plan.model)
    export_weights(directory, own, part_of=plan.model)
