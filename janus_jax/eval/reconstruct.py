"""Pictures through a VQ tokenizer and back, on all devices of a process, and how near they come."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.eval.fidelity import llamagen_ssim, psnr, ssim
from janus_jax.model import sharding as sh
from janus_jax.model.batch import pixels
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import tokenizer
from janus_jax.model.keys import Keys
from janus_jax.training.perceptual import lpips
from janus_jax.training.tokenizer_loss import redrawn
from janus_jax.training.vq_encoder import on_mesh, require_tokenizer
from janus_jax.weights.load import placed
from janus_jax.weights.reader import flatten
from janus_jax.weights.table import VQ

MEASURES = {"psnr": psnr, "ssim": ssim, "ssim_llamagen": llamagen_ssim}


class Reconstructor:
    """A whole tokenizer, on every device of this process.

    source: a `WeightReader` that was required.
    config: the tokenizer's sizes. Raises ValueError for weights that are not of them.
    weights: what `read_lpips` gives, or None.
    batch: pictures that a device takes at once; 0: 16, or 4 on CPU.
    """

    def __init__(
        self, source, config: GenerationEncoderConfig, weights: dict | None, batch: int = 0
    ):
        if config.scales and config.scales[-1] != config.grid[0]:
            raise ValueError(
                f"pictures of {config.image_size} pixels have a grid of {config.grid[0]} a side, and the "
                f"tokenizer's scales end in {config.scales[-1]}: give it pictures of "
                f"{config.scales[-1] * config.stride}"
            )
        self.mesh = sh.make_mesh(1, -1, 1, jax.local_devices())
        each = batch or (4 if jax.default_backend() == "cpu" else 16)
        self.batch = each * self.mesh.devices.size
        with sh.mesh_context(self.mesh):
            module = jax.eval_shape(lambda: tokenizer(config, Keys(jax.random.key(0))))
            graphdef, state = nnx.split(module)
            shapes = sh.concrete(nnx.to_pure_dict(state))
            wanted = {f"{VQ}.{name}": x.shape for name, x in flatten(shapes).items()}
            require_tokenizer(source, wanted, config)
            params = placed(source, shapes, f"{VQ}.")
            whole = jax.NamedSharding(self.mesh, sh.REPLICATED)
            self.params = params, jax.device_put(weights, whole)
        source.raise_if_damaged()
        self._run = functools.partial(reconstruct, graphdef)

    def __call__(self, pictures: np.ndarray) -> list[dict[str, jax.Array]]:
        """uint8 [n, S, S, 3] -> what `reconstruct` gives of each batch, perhaps still being
        computed; the last batch ends in pictures that are black."""
        rest = -len(pictures) % self.batch
        padded = np.pad(pictures, ((0, rest), (0, 0), (0, 0), (0, 0)))
        return [
            on_mesh(self.mesh, self._run, self.params, padded[i : i + self.batch])
            for i in range(0, len(padded), self.batch)
        ]


@functools.partial(jax.jit, static_argnums=0)
def reconstruct(graphdef, params, pictures) -> dict[str, jax.Array]:
    """Pictures through the tokenizer and back.

    Args:
        graphdef: of the tokenizer.
        params: its own, and what `read_lpips` gives, or None.
        pictures: uint8 [B, S, S, 3].

    Returns `pictures`, drawn again and rounded to uint8 as LlamaGen does; `ids` int32 [B, N], or [B, N * d]; and a
    float32 [B] for each measure: MEASURES, and "lpips" where it has weights.
    """
    own, weights = params
    model = nnx.merge(graphdef, own)
    ids, drawn = redrawn(model, pixels(pictures))
    drawn = jnp.clip(127.5 * drawn + 128, 0, 255).astype(jnp.uint8)
    found = {"pictures": drawn, "ids": ids.reshape(len(ids), -1)}
    found |= {name: of(pictures, drawn) for name, of in MEASURES.items()}
    if weights is not None:
        found["lpips"] = lpips(weights, pixels(pictures), pixels(drawn))
    return found


def usage(counts: np.ndarray) -> dict[str, float]:
    """How a codebook is used: the share of its codes that occur at all, and the perplexity, the
    number of equally frequent codes that would be as unpredictable (e to the entropy).

    counts: [codes], how often each occurs.
    """
    share = counts[counts > 0] / counts.sum()
    entropy = -(share * np.log(share)).sum()
    return {"usage": float((counts > 0).mean()), "perplexity": float(np.exp(entropy))}
