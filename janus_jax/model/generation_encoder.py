"""Figure 2, "Gen. Encoder" and the image decoder: LlamaGen's VQ tokenizer (arXiv 2406.06525,
section 2.1), and with spatial norms and free codes MoVQ's (arXiv 2209.09002, section 3.2).

A convolutional encoder, a codebook lookup, a convolutional decoder, in float32 throughout, its
products too (see `model.kernels`): ids do not depend on the platform, but where two codes are equally
near within float32's rounding. Weights are whole on every device (72 M at the released size).
"""

import importlib
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.kernels import FLOAT32, einsum
from janus_jax.model.layers import take, weight


class Conv(nnx.Module):
    """3x3 (padding 1) or 1x1 convolution, or the stride-2 one that pads right and bottom only."""

    def __init__(self, c_in: int, c_out: int, rngs: nnx.Rngs, size: int = 3, stride: int = 1):
        fan_in = size * size * c_in
        self.kernel = weight(rngs, (size, size, c_in, c_out), sh.REPLICATED, fan_in**-0.5)
        self.bias = nnx.Param(jnp.zeros(c_out))
        self.stride = stride
        self.pad = (0, 1) if stride == 2 else (size // 2, size // 2)

    def __call__(self, x):  # [B, H, W, in] -> [B, H / stride, W / stride, out]
        y = jax.lax.conv_general_dilated(
            x, self.kernel[...].astype(jnp.float32), (self.stride,) * 2, (self.pad,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=FLOAT32,
        )  # fmt: skip
        return y + self.bias


def norms(groups: int, rngs: nnx.Rngs, codes: int = 0):
    """What makes a norm of so many channels; codes: the width of those that spatial norms read."""
    how = dict(num_groups=groups, epsilon=1e-6, use_fast_variance=False, rngs=rngs)
    if not codes:
        return lambda channels: nnx.GroupNorm(channels, **how)
    spatial = importlib.import_module("janus_jax.model.spatial_norm").SpatialNorm
    return lambda channels: spatial(channels, codes, **how)


class ResBlock(nnx.Module):
    def __init__(self, c_in: int, c_out: int, norm, rngs: nnx.Rngs):
        self.norm1 = norm(c_in)
        self.conv1 = Conv(c_in, c_out, rngs)
        self.norm2 = norm(c_out)
        self.conv2 = Conv(c_out, c_out, rngs)
        self.shortcut = Conv(c_in, c_out, rngs, size=1) if c_in != c_out else nnx.data(None)

    def __call__(self, x, *codes):  # [B, H, W, in] -> [B, H, W, out]
        h = self.conv1(nnx.silu(self.norm1(x, *codes)))
        h = self.conv2(nnx.silu(self.norm2(h, *codes)))
        return h + (x if self.shortcut is None else self.shortcut(x))


class AttnBlock(nnx.Module):
    """One head over all positions."""

    def __init__(self, channels: int, norm, rngs: nnx.Rngs):
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj = (Conv(channels, channels, rngs, 1) for _ in range(4))

    def __call__(self, x, *codes):  # [B, H, W, C]
        h = self.norm(x, *codes)
        q = self.q(h)
        k = self.k(h)
        v = self.v(h)
        scores = einsum("bhwc,byxc->bhwyx", q, k) * x.shape[-1] ** -0.5
        weights = jnp.exp(scores - scores.max((3, 4), keepdims=True))
        weights = weights / weights.sum((3, 4), keepdims=True)
        return x + self.proj(einsum("bhwyx,byxc->bhwc", weights, v))


class Level(nnx.Module):
    """One resolution: residual blocks, attention after each where asked, then a change of it."""

    def __init__(self, c_in, c_out, blocks, norm, rngs, *, attention: bool, resample: int | None):
        widths = [c_in] + [c_out] * blocks
        attended = widths[1:] if attention else []
        self.res = nnx.List([ResBlock(a, b, norm, rngs) for a, b in itertools.pairwise(widths)])
        self.attn = nnx.List([AttnBlock(width, norm, rngs) for width in attended])
        self.resample = Conv(c_out, c_out, rngs, stride=resample) if resample else nnx.data(None)
        self.upsamples = resample == 1

    def __call__(self, x, *codes):  # [B, H, W, C] -> [B, H', W', C']
        for i, res in enumerate(self.res):
            x = res(x, *codes)
            x = self.attn[i](x, *codes) if self.attn else x
        if self.resample is None:
            return x
        return self.resample(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) if self.upsamples else x)


def middle(channels: int, norm, rngs: nnx.Rngs) -> nnx.List:
    res = [ResBlock(channels, channels, norm, rngs) for _ in range(2)]
    return nnx.List([res[0], AttnBlock(channels, norm, rngs), res[1]])


class VqEncoder(nnx.Module):  # deep: it attends after each block of the lowest resolution
    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs, deep: bool = True):
        norm = norms(config.norm_groups, rngs)
        last = len(config.multipliers) - 1
        widths = [config.channels] + [config.channels * m for m in config.multipliers]
        self.conv_in = Conv(3, config.channels, rngs)
        self.levels = nnx.List([
            Level(a, b, config.res_blocks, norm, rngs, attention=deep and i == last, resample=2 if i < last else None)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        ])  # fmt: skip
        self.mid = middle(widths[-1], norm, rngs)
        self.norm_out = norm(widths[-1])
        self.conv_out = Conv(widths[-1], config.z_channels, rngs)

    def __call__(self, x):  # [B, H, W, 3] -> [B, h, w, Z]
        for box in [self.conv_in, *self.levels, *self.mid]:
            x = box(x)
        return self.conv_out(nnx.silu(self.norm_out(x)))


class VqDecoder(nnx.Module):  # deep: likewise
    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs, deep: bool = True):
        self.spatial = config.decoder_norm == "spatial"
        norm = norms(config.norm_groups, rngs, config.code_dim if self.spatial else 0)
        last = len(config.multipliers) - 1
        out = [config.channels * m for m in reversed(config.multipliers)]
        widths = [out[0], *out]
        self.conv_in = Conv(config.z_channels, out[0], rngs)
        self.mid = middle(out[0], norm, rngs)
        self.levels = nnx.List([
            Level(a, b, config.res_blocks + 1, norm, rngs, attention=deep and i == 0, resample=1 if i < last else None)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        ])  # fmt: skip
        self.norm_out = norm(out[-1])
        self.conv_out = Conv(out[-1], 3, rngs)

    def features(self, z, codes):  # [B, h, w, Z] -> [B, H, W, C], what the last convolution reads
        read = [codes] if self.spatial else []  # [B, h, w, code_dim], of which z was made
        x = self.conv_in(z)
        for box in [*self.mid, *self.levels]:
            x = box(x, *read)
        return nnx.silu(self.norm_out(x, *read))

    def __call__(self, z, codes):  # see `features`; -> [B, H, W, 3], not bounded
        return self.conv_out(self.features(z, codes))


def normalise(x):
    """Rows of unit length, float32 (floor 1e-12 on the norm)."""
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x * x, -1, keepdims=True)), 1e-12)


class GenerationEncoder(nnx.Module):
    """Pictures to ids and back. `codebook` is stored raw, and used as `unit` says."""

    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs):
        n = config.codebook_size
        c = config.code_dim
        self.encoder = VqEncoder(config, rngs)
        self.quant_conv = Conv(config.z_channels, c, rngs, size=1)
        self.codebook = nnx.Param(normalise(jax.random.uniform(rngs.params(), (n, c), minval=-1.0)))
        self.post_quant_conv = Conv(c, config.z_channels, rngs, size=1)
        self.decoder = VqDecoder(config, rngs)
        self.l2_norm = config.codebook_l2_norm

    def unit(self, x):  # latents or codes: rows of unit length where the lookup is by direction
        return normalise(x) if self.l2_norm else x

    def latents(self, images):  # [B, H, W, 3] in [-1, 1] -> [B, h, w, code_dim]
        return self.unit(self.quant_conv(self.encoder(images.astype(jnp.float32))))

    def nearest(self, z):  # [B, h, w, code_dim] -> int32 ids [B, h, w]; the first code wins a tie
        codes = self.unit(self.codebook[...])
        own = 1.0 if self.l2_norm else 0.0  # a unit z by itself; others: without, for precision
        distance = own + (codes * codes).sum(-1) - 2.0 * einsum("bhwc,nc->bhwn", z, codes)
        return jnp.argmin(distance, -1).astype(jnp.int32)

    def codes(self, ids):  # int32 [...] -> code vectors, as they are used [..., code_dim]
        return take(self.unit(self.codebook[...]), ids)

    def render(self, codes):  # [B, h, w, code_dim] -> [B, H, W, 3], about [-1, 1] but not clipped
        return self.decoder(self.post_quant_conv(codes), codes)

    def encode(self, images):  # [B, H, W, 3] in [-1, 1] -> int32 ids [B, N], raster order
        return self.nearest(self.latents(images)).reshape(len(images), -1)

    def decode(self, ids, grid):  # int32 [B, N], (rows, columns) -> [B, H, W, 3]
        return self.render(self.codes(ids.reshape(ids.shape[0], *grid)))


def tokenizer(config: GenerationEncoderConfig, rngs: nnx.Rngs) -> GenerationEncoder:
    """That of one code a token, of several, or of several scales; the files of the last two are loaded
    where they are used."""
    if config.scales:
        of_scales = importlib.import_module("janus_jax.model.multiscale")
        return of_scales.MultiscaleTokenizer(config, rngs)
    if config.depth > 1:
        quantizer = importlib.import_module("janus_jax.model.residual_quantizer")
        return quantizer.ResidualEncoder(config, rngs)
    return GenerationEncoder(config, rngs)
