"""Image ids of a few pictures, made by tiny tokenizers."""

import functools
import math
import time

import jax
from flax import nnx
from support import tiny
from support.mesh import on_mesh

from janus_jax.data import image_ids
from janus_jax.data.image_files import ImageError
from janus_jax.data.toy import shapes_sources
from janus_jax.model import sharding as sh
from janus_jax.training import tokenize_images, vq_encoder
from janus_jax.weights.load import export

VQ = tiny.CONFIG.generation_encoder


class Pictures:
    """`count` pictures of the shapes world; those in `bad` cannot be opened."""

    fingerprint = "0123456789abcdef"

    def __init__(self, count: int, bad=(), seconds: float = 0.0):
        self.count, self.bad, self.seconds = count, bad, seconds
        self.shapes = shapes_sources.ShapesGeneration()

    def __len__(self):
        return self.count

    def __repr__(self):
        return f"Pictures({self.count})"

    def __getitem__(self, i):
        return self.shapes[i]

    def image(self, i, k=0):
        time.sleep(self.seconds)
        if i in self.bad:
            raise ImageError(f"{self.where(i)}: is empty (0 bytes)")
        return self.shapes.image(i)

    def where(self, i):
        return f"pictures:{i}"


def tokenizers(root) -> dict:
    """Weights of the VQ tokenizer alone, by seed, in directories below `root`."""
    found = {}
    for seed in (0, 1):
        with on_mesh():
            params = nnx.to_pure_dict(nnx.state(tiny.make_model(seed=seed).generation_encoder))
            found[seed] = root / str(seed)
            export(found[seed], {"generation_encoder": params})
    return found


def make(directory, weights, source=None, mesh=(1, 1, 1), **options):
    options = {
        "batch": 8,
        "shard": 20,
        "threads": 2,
        "arguments": ["--weights=old", "--out=ids"],
    } | options
    source = source or Pictures(50)
    bad = tokenize_images.tokenize(source, encoder(weights, mesh), directory, **options)
    return image_ids.Ids(directory), bad


@functools.cache
def encoder(weights, mesh=(1, 1, 1)):
    mesh = sh.make_mesh(*mesh, jax.devices()[: math.prod(mesh)])
    return vq_encoder.TokenizerEncoder(weights, VQ, mesh=mesh)
