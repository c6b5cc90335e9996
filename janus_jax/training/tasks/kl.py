"""Training a KL tokenizer (latent diffusion, arXiv 2112.10752, section 3.1): it learns to draw back what
it sees from latents that stay near a normal distribution.

The loss is the reconstruction's, `kl_weight` times the latents' distance from a standard normal, and
the perceptual term of task vq where its files are given. A discriminator is not part of it.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.config.schema import Experiment
from janus_jax.distributed import arrays
from janus_jax.model import sharding as sh
from janus_jax.model.batch import pixels
from janus_jax.model.config import JanusConfig
from janus_jax.model.keys import Keys
from janus_jax.model.kl_tokenizer import KlTokenizer
from janus_jax.training import optim, picture_stages, stage_data, tokenizer_data
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.state import TrainState, new_state, update
from janus_jax.training.tasks import vq
from janus_jax.training.tokenizer_loss import perceptual_loss, reconstruction_loss
from janus_jax.weights.load import export as export_weights

PACKS = False
NARROWS = False
TEACHERS = ()
VALIDATES = ("loss", "reconstruction", "perceptual")
OPTIONS = {
    name: vq.OPTIONS[name]
    for name in (
        "reconstruction_loss",
        "lpips",
        "perceptual_weight",
        "crop",
        "flip",
    )
} | {"kl_weight": 1e-6}  # latent diffusion's; the distance is summed over a picture's latents
without = vq.without
batch_shapes = vq.batch_shapes
read_first = vq.read_first


class Tokenizer(nnx.Module):
    """What a stage's state holds, named as in `Janus`."""

    def __init__(self, model: JanusConfig, rngs):
        self.generation_encoder = KlTokenizer(model.generation_encoder, rngs)


def kl_terms(tokenizer: KlTokenizer, batch: dict, options: dict, noise=None) -> tuple[dict, dict]:
    """(the summands of the loss, weighted, float32 scalars by name; metrics).

    batch: images, uint8 [B, H, W, 3], and, where the perceptual term is on, lpips.
    noise: standard normal, [B, h, w, C]; without, what is drawn back is each latent's mean.
    """
    x = pixels(batch["images"])
    mean, log_variance = tokenizer.moments(x)
    z = mean if noise is None else mean + jnp.exp(0.5 * log_variance) * noise
    image = tokenizer.render(z)
    # Of N(mean, variance) from N(0, 1), of a picture.
    distance = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum((1, 2, 3)).mean()
    terms = {
        "reconstruction": reconstruction_loss(x, image, options["reconstruction_loss"]),
        "kl": options["kl_weight"] * distance,
    }
    if "lpips" in batch:
        terms["perceptual"] = perceptual_loss(batch, x, image, options)
    return terms, {"latent_std": mean.std(), "latent_noise": jnp.exp(0.5 * log_variance).mean()}


def kl_step(state: TrainState, batch: dict, tx, options: dict) -> tuple[TrainState, dict]:
    """Pure; jitted, with the state donated, in stages.py. The noise is that of the step's number."""
    key = jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), state.step)

    def loss(model):
        tokenizer = model.generation_encoder
        shape = jax.eval_shape(lambda x: tokenizer.moments(pixels(x))[0], batch["images"])
        noise = jax.random.normal(key, shape.shape, out_sharding=sh.BATCH)
        terms, told = kl_terms(tokenizer, batch, options, noise)
        total = sum(terms.values())
        return total, {"loss": total, **terms, **told}

    return update(state, tx, loss)


# The task.


def problems(experiment: Experiment, name: str) -> list[str]:
    path = f"stages.{name}"
    stage = experiment.stages[name]
    found = picture_stages.field_problems(experiment, name)
    if stage.trainable != ("generation_encoder",):
        found.append(
            f"{path}.trainable is {stage.trainable}: task kl trains the tokenizer alone; set it to "
            "('generation_encoder',)"
        )
    latent = experiment.model.generation_encoder.latent
    if latent != "kl":
        found.append(
            f"{path}.task is kl and model.generation_encoder.latent {latent!r}: it has no means and "
            "variances to learn; set latent to 'kl' (and model.image_head to 'diffusion'), or task to vq"
        )
    return found


def init_state(key, model: JanusConfig, tx, trainable=(), without=(), options=OPTIONS):
    graphdef, params = nnx.split(Tokenizer(model, Keys(key)))
    return new_state(graphdef, nnx.to_pure_dict(params), {}, tx)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _draw(key, model: JanusConfig, names: tuple[str, ...]) -> dict:
    drawn = nnx.to_pure_dict(nnx.state(Tokenizer(model, Keys(key))))
    return {name: drawn[name] for name in names}


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    return _draw(jax.random.key(seed), model, names)


def for_devices(plan: StagePlan, say) -> StagePlan:
    return plan


def step(plan: StagePlan):
    tx = optim.make(plan.stage.optim, plan.stage.steps)
    return functools.partial(kl_step, tx=tx, options=plan.options)


def validate(plan: StagePlan):
    def sums(state, batch):
        terms, _ = kl_terms(state.model().generation_encoder, batch, plan.options)
        n = jnp.float32(len(batch["images"]))
        means = {"loss": sum(terms.values())} | terms
        return {name: (means[name] * n, n) for name in VALIDATES if name in means}

    return sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """Images by (seed, step) alone, this process's part of each step's."""
    images = tokenizer_data.open_pictures(plan, sources, workdir, say)
    constant = tokenizer_data.constants(plan, say)
    part = {"images": plan.stage.batch_size / jax.process_count()}
    next_batch = lambda i: (arrays.put_batch({"images": images[i]}) | constant, part)
    return stage_data.StageData(next_batch, images.stats, images.mixture)


def export(plan: StagePlan, directory, params: dict, processor):
    export_weights(directory, params, part_of=plan.model)
