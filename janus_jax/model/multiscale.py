"""The multi-scale residual VQ tokenizer of VAR (arXiv 2404.02905, section 3.2; the released models'
models/quant.py): LlamaGen's network, whose latents are told scale by scale, coarse to fine.

Each scale quantises, on a grid of its own, what the coarser ones have left of the latents: the rest is
averaged down to that grid, each vector takes the nearest code of the one codebook, and the codes, made
as large as the latents again, are added up. Scales that lie next to each other share a convolution that
mends what enlarging blurs.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import Conv, GenerationEncoder
from janus_jax.model.kernels import einsum

PHIS = 4  # convolutions, shared by all scales, as in VAR
RATIO = 0.5  # how much of what a scale adds has passed its convolution


class MultiscaleTokenizer(GenerationEncoder):
    """Pictures to the ids of K scales and back, in float32. N: ids of a picture, one scale after the
    other, each in raster order; h, w: the latents' grid, which is the last scale's."""

    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        c = config.code_dim
        self.phi = nnx.List([Conv(c, c, rngs) for _ in range(PHIS)])
        self.scales = config.scales

    def added(self, k: int, ids):  # int32 [B, s*s] of scale k -> its part of the sum, [B, h, w, C]
        s = self.scales[k]
        wide = resized(self.codes(ids.reshape(len(ids), s, s)), bicubic(s, self.scales[-1]))
        return (1 - RATIO) * wide + RATIO * self.phi[shared(k, len(self.scales))](wide)

    def read(self, total, k: int):  # [B, h, w, C] -> [B, s*s, C], averaged to scale k's grid
        x = resized(total, area(self.scales[-1], self.scales[k]))
        return x.reshape(len(x), -1, x.shape[-1])

    def quantised(self, z):
        """What each scale makes of latents z [B, h, w, C].

        Returns ids int32 [B, N, 1]; the vectors that were looked up, [B, N, 1, C], with the gradient
        of z; and the sums after each scale, [K, B, h, w, C], with that of the codes.
        """
        total = jnp.zeros_like(z)
        ids, looked, sums = [], [], []
        for k in range(len(self.scales)):
            rest = self.read(z - jax.lax.stop_gradient(total), k)[:, :, None]
            found = self.nearest(jax.lax.stop_gradient(rest))
            total = total + self.added(k, found[..., 0])
            ids.append(found)
            looked.append(rest)
            sums.append(total)
        return jnp.concatenate(ids, 1), jnp.concatenate(looked, 1), jnp.stack(sums)

    def split(self, ids) -> list:  # int32 [B, N] -> K times [B, s*s]
        ends = itertools.accumulate(s * s for s in self.scales)
        return jnp.split(ids, list(ends)[:-1], axis=1)

    def before(
        self, ids
    ):  # int32 [B, N] -> [B, N, C], what is known of a scale once those before are
        """0 of the first."""
        shape = len(ids), *[self.scales[-1]] * 2, self.codebook.shape[1]
        total = jnp.zeros(shape, out_sharding=jax.P(jax.typeof(ids).sharding.spec[0]))
        found = []
        for k, own in enumerate(self.split(ids)):
            found.append(self.read(total, k))
            total = total + self.added(k, own)
        return jnp.concatenate(found, 1)

    def encode(self, images):  # [B, H, W, 3] in [-1, 1] -> int32 ids [B, N]
        return self.quantised(self.latents(images))[0][..., 0]

    def decode(self, ids, grid=None):  # int32 [B, N] -> [B, H, W, 3]; the grid is the last scale's
        return self.render(sum(self.added(k, own) for k, own in enumerate(self.split(ids))))


def shared(k: int, scales: int) -> int:
    """Which of the convolutions scale k of so many has: the nearest, where scales lie evenly from 0 to
    1 and convolutions from 1/12 to 11/12, as in VAR."""
    places = np.linspace(1 / 12, 11 / 12, PHIS)
    return int(np.argmin(np.abs(places - k / max(scales - 1, 1))))


def resized(x, matrix):  # [B, n, n, C], [m, n] -> [B, m, m, C]
    """A matrix along each side; one that changes nothing is not applied."""
    if matrix.shape[0] == matrix.shape[1]:
        return x
    matrix = jnp.asarray(matrix)
    return einsum("bwic,hi->bhwc", einsum("bijc,wj->bwic", x, matrix), matrix)


@functools.cache
def area(n: int, m: int) -> np.ndarray:
    """float32 [m, n]: means of n places in m cells, each of all the places that it touches (torch's
    `interpolate` of mode area)."""
    out = np.zeros((m, n), np.float32)
    for i in range(m):
        cell = slice(i * n // m, -(-(i + 1) * n // m))
        out[i, cell] = 1 / len(range(n)[cell])
    return out


@functools.cache
def bicubic(n: int, m: int) -> np.ndarray:
    """float32 [m, n]: n places enlarged to m by Keys' kernel with a = -0.75, the outermost repeated
    beyond the border (torch's `interpolate` of mode bicubic, corners not aligned)."""
    a = -0.75
    out = np.zeros((m, n))
    for i in range(m):
        at = (i + 0.5) * n / m - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            d = abs(at - j)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
            out[i, min(max(j, 0), n - 1)] += near if d <= 1 else far
    return out.astype(np.float32)
