"""Programs lowered and compiled for chips that are not there."""

import re

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.distributed import chips
from janus_jax.model import sharding as sh
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.plan import aot


def products(lowered) -> list[str]:
    """The products of a lowered program, a line each."""
    text = lowered.as_text()
    return [x for x in text.splitlines() if re.search(r"stablehlo\.(convolution|dot_general)", x)]


def encode(topology: str) -> str:
    """A tiny VQ tokenizer's `encode` as text, compiled for one chip of a topology."""
    chip, count = chips.parse_topology(topology)
    found, _ = aot.devices(chip, count, topology)
    config = GenerationEncoderConfig(
        image_size=8, channels=8, multipliers=(1,), res_blocks=1, z_channels=8, norm_groups=4,
        codebook_size=64,
    )  # fmt: skip
    with sh.mesh_context(mesh := sh.make_mesh(1, 1, 1, found[:1])):
        whole = jax.NamedSharding(mesh, sh.REPLICATED)
        put = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole)
        model = jax.eval_shape(lambda: GenerationEncoder(config, nnx.Rngs(0)))
        images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
        run = jax.jit(lambda model, images: model.encode(images))
        return run.lower(*jax.tree.map(put, (model, images))).compile().as_text()
