"""transformers' vision encoders with small random weights, and ours with the same."""

import dataclasses

import jax
import torch
import transformers
from flax import nnx
from support import foreign
from support.oracle import randomise
from support.outputs import nchw, pictures, run

from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig, UnderstandingEncoderConfig
from janus_jax.model.keys import Keys
from janus_jax.model.understanding_encoder import encoder
from janus_jax.model.vit import PIXELS
from janus_jax.weights.differences import ENCODER
from janus_jax.weights.load import import_weights

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
    "image_size": 24, "patch_size": 6,
}  # fmt: skip
OURS = {"image_size": 24, "patch_size": 6, "width": 32, "mlp_width": 48, "layers": 3, "heads": 2}


def config(**differences) -> JanusConfig:
    """A tiny Janus with such an encoder."""
    encoder = UnderstandingEncoderConfig(**OURS | differences)
    return dataclasses.replace(foreign.config(), understanding_encoder=encoder)


def theirs(name: str, seed: int = 0, **more):
    """One of transformers' models by the name of its class, whose config has the same name."""
    sizes = getattr(transformers, name.replace("Model", "Config"))(**SIZES | more)
    model = getattr(transformers, name)(sizes).eval().requires_grad_(False)
    randomise(model, seed)
    return model


def built(config: JanusConfig, seed: int = 0):
    """The encoder with random weights."""
    how = config.dtype, config.remat, "plain"
    return encoder(config.understanding_encoder, *how, Keys(jax.random.key(seed)))


def shapes(module) -> dict:
    return sh.concrete(nnx.to_pure_dict(nnx.state(module)))


def ours(path, config: JanusConfig):
    """The encoder of `config` with the weights at a path, read as a stage's start reads them."""
    abstract = jax.eval_shape(lambda: built(config))
    params, _ = import_weights(
        path, {ENCODER: shapes(abstract)}, partly=True, config=config, say=lambda _: None
    )
    return nnx.merge(nnx.graphdef(abstract), params[ENCODER])


def images(n: int = 2):
    """float32 [n, H, W, 3] in [-1, 1]."""
    return pictures(1, n, OURS["image_size"], OURS["image_size"])


def normalised(images, pixels: str) -> torch.Tensor:
    """Pictures in [-1, 1] as an encoder's own processor has them: [n, 3, H, W]."""
    mean, std = (torch.tensor(x)[None, :, None, None] for x in PIXELS[pixels])
    return ((nchw(images) + 1) / 2 - mean) / std


def features(encoder, images):
    return run(lambda m, x: m(x), encoder, images)
