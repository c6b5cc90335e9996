"""Training the VQ tokenizer (LlamaGen, arXiv 2406.06525, section 2.1): it learns to draw back what
it sees.

Reconstruction (MSE), codebook, commitment and entropy losses. The perceptual (LPIPS) and
adversarial (PatchGAN) terms of the paper's recipe are further summands of `tokenizer_loss` and are
not built yet: small drawn images do without them.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.config.schema import Experiment
from janus_jax.data.images import generation_image
from janus_jax.distributed import arrays
from janus_jax.model.batch import pixels
from janus_jax.model.config import GenerationEncoderConfig, JanusConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.generation_encoder import normalise as normalise_codes
from janus_jax.model.kernels import einsum
from janus_jax.model.keys import Keys
from janus_jax.training import stage_data
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, new_state, update
from janus_jax.training.vq_encoder import warn_of_rounding
from janus_jax.weights.load import export as export_weights

PACKS = False
VALIDATES = ("loss", "reconstruction")
OPTIONS = {
    "commitment": 0.25,  # weight of the commitment loss, as in LlamaGen
    # Weight of the entropy loss. LlamaGen has none, but without it a small tokenizer that is
    # trained from nothing falls onto two or three codes.
    "entropy": 0.0,
}


class Tokenizer(nnx.Module):
    """Holds the encoder as a child named as in `Janus`, so that its weights are handed on by
    name."""

    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs):
        self.generation_encoder = GenerationEncoder(config, rngs)


def entropy_loss(model: GenerationEncoder, z):
    """Low when each position is sure of its code and all codes are used alike (temperature
    0.01)."""
    affinity = 2.0 * einsum("bhwc,nc->bhwn", z, normalise_codes(model.codebook[...])) / 0.01
    logp = jax.nn.log_softmax(affinity)
    p = jnp.exp(logp)
    mean = p.mean((0, 1, 2))
    return -(p * logp).sum(-1).mean() + (mean * jnp.log(mean + 1e-5)).sum()


def tokenizer_loss(model: GenerationEncoder, images, commitment: float, entropy: float):
    """images uint8 [B, H, W, 3] -> (loss, metrics). Gradients pass straight through the nearest
    code."""
    x = pixels(images)
    z = model.latents(x)
    ids = model.nearest(jax.lax.stop_gradient(z))
    codes = model.codes(ids)
    straight = z + jax.lax.stop_gradient(codes - z)
    terms = {
        "reconstruction": jnp.mean((model.render(straight) - x) ** 2),
        "codebook": jnp.mean((codes - jax.lax.stop_gradient(z)) ** 2),
        "commitment": commitment * jnp.mean((jax.lax.stop_gradient(codes) - z) ** 2),
    }
    if entropy:
        terms["entropy"] = entropy * entropy_loss(model, z)
    used = (ids[..., None] == jnp.arange(model.codebook.shape[0])).any((0, 1, 2)).sum()
    return sum(terms.values()), terms | {"codes_used": used.astype(jnp.float32)}


def vq_step(
    state: TrainState, images, tx, commitment: float, entropy: float
) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in stages.py.

    Args:
        state: the train state.
        images: uint8 [B, H, W, 3].
        tx: the optimiser.
        commitment: weight of the commitment loss.
        entropy: weight of the entropy loss.
    """
    loss = lambda model: tokenizer_loss(model.generation_encoder, images, commitment, entropy)
    return update(state, tx, loss)


# The task.


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = []
    if stage.trainable != ("generation_encoder",):
        found.append(
            f"{path}.trainable is {stage.trainable}: task vq trains the tokenizer alone; set it to "
            f"('generation_encoder',)"
        )
    shares = vars(stage.ratio)
    if any(shares.values()) and (shares["understanding"] or shares["text"]):
        asked = ":".join(f"{share:g}" for share in shares.values())
        found.append(
            f"{path}.ratio is {asked}: task vq learns from images of generation alone; set it to 0:0:1"
        )
    if stage.rows is not None:
        found.append(
            f"{path}.rows: task vq packs no rows, a step has batch_size images; leave it out"
        )
    unused = {"accumulate": 1, "supervise": "all", "condition_dropout": 0.1, "first_sentence": 0.25}
    found += [
        f"{path}.{field} is {getattr(stage, field)!r}: task vq reads no such field; leave it out"
        for field, default in unused.items()
        if getattr(stage, field) != default
    ]
    if name == list(experiment.stages)[-1] and experiment.evaluation.count:
        found.append(
            f"evaluation.count is {experiment.evaluation.count}: the last stage, {name}, hands on "
            f"the VQ tokenizer alone, which neither draws nor answers; set it to 0"
        )
    return found


def without(experiment: Experiment, name: str) -> tuple[str, ...]:
    return ()  # its state has no other child in the first place


def init_state(key, model: JanusConfig, tx, trainable=(), without=(), options=None) -> TrainState:
    """Random weights of the tokenizer alone."""
    graphdef, params = nnx.split(Tokenizer(model.generation_encoder, Keys(key)))
    return new_state(graphdef, nnx.to_pure_dict(params), {}, tx)


@functools.partial(jax.jit, static_argnums=1)
def _draw(key, config: GenerationEncoderConfig) -> dict:
    return nnx.to_pure_dict(nnx.state(Tokenizer(config, Keys(key))))


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=None) -> dict:
    return _draw(jax.random.key(seed), model.generation_encoder)


def for_devices(plan: StagePlan, say) -> StagePlan:
    warn_of_rounding(say)
    return plan


def step(plan: StagePlan):
    return functools.partial(vq_step, tx=plan.tx, **plan.options)


def validate(plan: StagePlan):
    def sums(state, images):
        loss, terms = tokenizer_loss(state.model().generation_encoder, images, **plan.options)
        n = jnp.float32(len(images))
        means = {"loss": loss, "reconstruction": terms["reconstruction"]}
        return {name: (mean * n, n) for name, mean in means.items()}

    return sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """Images by (seed, step) alone, this process's part of each step's."""
    images = stage_data.open_images(plan, sources, workdir, say)
    part = {"images": plan.stage.batch_size / jax.process_count()}
    next_batch = lambda i: (arrays.put_batch({"images": images[i]})["images"], part)
    return stage_data.StageData(next_batch, images.stats, images.mixture)


def read_first(plan: StagePlan, processor):
    side = plan.model.generation_encoder.image_size
    # Training reads the image alone: a record whose text cannot be used is no fault here.
    return lambda line, source, index: (
        f"picture of {generation_image(source.image(index), side).shape[0]} pixels"
    )


def export(plan: StagePlan, directory, params: dict, processor):
    export_weights(directory, params, part_of=plan.model)
