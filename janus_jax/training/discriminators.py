"""The two discriminators of LlamaGen's tokenizer (arXiv 2406.06525, section 2.1): which pictures are
real?

Their parts bear the numbers and names of LlamaGen's modules (tokenizer/tokenizer_image/
discriminator_patchgan.py and discriminator_stylegan.py): its `main.2.weight` [out, in, 4, 4] is our
`main.2.kernel` [4, 4, in, out], its `running_mean` our `mean`, its `blocks` our `body`. float32
throughout; weights are whole on every device, and statistics of a batch are those of all its
pictures, on whatever devices.
"""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model.kernels import FLOAT32, einsum

KINDS = ("patchgan", "stylegan")
MOMENTUM = 0.1  # the share of the newest batch in the running statistics, torch's default
EPSILON = 1e-5  # of batch normalisation, torch's default
FULL = 256  # pixels a side at which the StyleGAN discriminator begins with `width` channels
WIDEST = 8  # times the width


class Convolution(nnx.Module):
    """std: of the kernel, normal; None: torch's own, uniform within fan_in ** -0.5."""

    def __init__(self, c_in, c_out, size, rngs, *, stride=1, pad=0, bias=True, std=None):
        shape = (size, size, c_in, c_out)
        bound = (size * size * c_in) ** -0.5
        kernel = (
            _uniform(rngs, shape, bound) if std is None else std * _normal(rngs, shape)
        )  # [H, W, in, out]
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(_uniform(rngs, (c_out,), bound)) if bias else nnx.data(None)
        self.stride = stride
        self.pad = pad

    def __call__(self, x):  # [B, H, W, in] -> [B, H', W', out]
        y = jax.lax.conv_general_dilated(
            x, self.kernel[...], (self.stride,) * 2, [(self.pad, self.pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=FLOAT32,
        )  # fmt: skip
        return y if self.bias is None else y + self.bias


class BatchNorm(nnx.Module):
    """By the batch's own statistics, as in training. `mean` and `var` are running ones: nothing here
    reads them, they belong to the weights."""

    def __init__(self, channels: int, rngs):
        self.scale = nnx.Param(1 + 0.02 * _normal(rngs, (channels,)))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.Param(jnp.zeros(channels))
        self.var = nnx.Param(jnp.ones(channels))

    def __call__(self, x):
        """[B, H, W, C] -> (the same normalised; the batch's mean and variance [C], this one
        unbiased, as running statistics want them)."""
        count = math.prod(x.shape[:3])
        mean = x.mean((0, 1, 2))
        var = ((x - mean) ** 2).mean((0, 1, 2))
        y = (x - mean) * jax.lax.rsqrt(var + EPSILON) * self.scale + self.bias
        return y, {"mean": mean, "var": var * (count / max(count - 1, 1))}


class PatchGan(nnx.Module):
    """A logit for each patch of a picture: `layers` halvings, each wider than the one before."""

    def __init__(self, width: int, layers: int, rngs):
        widths = [width * min(2**i, WIDEST) for i in range(layers + 1)]
        how = dict(pad=1, std=0.02)
        parts = {"0": Convolution(3, width, 4, rngs, stride=2, **how)}
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            parts[f"{3 * i - 1}"] = Convolution(
                widths[i - 1], widths[i], 4, rngs, stride=stride, bias=False, **how
            )
            parts[f"{3 * i}"] = BatchNorm(widths[i], rngs)
        parts[f"{3 * layers + 2}"] = Convolution(widths[-1], 1, 4, rngs, **how)
        self.main = nnx.Dict(parts)
        self.layers = layers

    def __call__(self, x):
        """[B, H, W, 3] in [-1, 1] -> (logits [B, h, w, 1]; the statistics of each BatchNorm, by its
        number)."""
        statistics = {}
        x = _leaky(self.main["0"](x))
        for i in range(1, self.layers + 1):
            norm = f"{3 * i}"
            x, statistics[norm] = self.main[norm](self.main[f"{3 * i - 1}"](x))
            x = _leaky(x)
        return self.main[f"{3 * self.layers + 2}"](x), statistics


class StyleGan(nnx.Module):
    """One logit a picture: residual blocks down to 4 x 4 pixels. No batch statistics."""

    def __init__(self, image_size: int, width: int, rngs):
        sides = [image_size // 2**i for i in range(int(math.log2(image_size)) - 1)]
        widths = [max(1, width * min(WIDEST * FULL, FULL * FULL // side) // FULL) for side in sides]
        self.body = nnx.Dict({
            "0": Convolution(3, widths[0], 3, rngs, pad=1),
            **{f"{i + 2}": Block(a, b, rngs) for i, (a, b) in enumerate(itertools.pairwise(widths))},
        })  # fmt: skip
        wide = WIDEST * width
        self.final_conv = nnx.Dict({"0": Convolution(widths[-1], wide, 3, rngs, pad=1)})
        self.final_linear = nnx.Dict({"0": Dense(wide * 16, wide, rngs), "2": Dense(wide, 1, rngs)})
        self.count = len(widths) - 1

    def __call__(self, x):  # [B, H, W, 3] in [-1, 1] -> (logits [B, 1], no statistics)
        x = _leaky(self.body["0"](x))
        for i in range(self.count):
            x = self.body[f"{i + 2}"](x)
        x = _leaky(self.final_conv["0"](x))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # the order in which torch flattens
        return self.final_linear["2"](_leaky(self.final_linear["0"](x))), {}


class Block(nnx.Module):
    """Halves the sides."""

    def __init__(self, c_in: int, c_out: int, rngs):
        self.conv_res = Convolution(c_in, c_out, 1, rngs, stride=2)
        self.net = nnx.Dict({
            "0": Convolution(c_in, c_out, 3, rngs, pad=1),
            "2": Convolution(c_out, c_out, 3, rngs, pad=1),
        })  # fmt: skip
        self.downsample = nnx.Dict({"1": Convolution(c_out, c_out, 3, rngs, stride=2, pad=1)})

    def __call__(self, x):  # [B, H, W, in] -> [B, H / 2, W / 2, out]
        y = _leaky(self.net["2"](_leaky(self.net["0"](x))))
        return (self.downsample["1"](blur(y)) + self.conv_res(x)) * 2**-0.5


class Dense(nnx.Module):
    def __init__(self, d_in: int, d_out: int, rngs):
        self.kernel = nnx.Param(_uniform(rngs, (d_in, d_out), d_in**-0.5))
        self.bias = nnx.Param(_uniform(rngs, (d_out,), d_in**-0.5))

    def __call__(self, x):  # [B, in] -> [B, out]
        return einsum("bi,io->bo", x, self.kernel[...]) + self.bias


def blur(x):
    """[B, H, W, C], each pixel with its neighbours as 1, 2, 1 along both sides; edges are
    mirrored."""
    for axis in (1, 2):
        part = lambda start, end: jax.lax.slice_in_dim(x, start, end, axis=axis)  # noqa: B023
        n = x.shape[axis]
        before = jnp.concatenate([part(1, 2), part(0, n - 1)], axis)
        after = jnp.concatenate([part(1, n), part(n - 2, n - 1)], axis)
        x = (before + 2 * x + after) / 4
    return x


def build(kind: str, image_size: int, width: int, layers: int, rngs) -> PatchGan | StyleGan:
    """Random weights of a discriminator.

    Args:
        kind: of KINDS.
        image_size: pixels a side; see `size_problem`.
        width: channels of the PatchGAN's first layer; of the StyleGAN's at 256 pixels.
        layers: of the PatchGAN.
        rngs: where the keys come from.
    """
    if kind == "patchgan":
        return PatchGan(width, layers, rngs)
    return StyleGan(image_size, width, rngs)


def size_problem(kind: str, image_size: int, layers: int) -> str:
    """Why pictures of that side cannot be judged, and what to change; empty where they can."""
    if kind == "stylegan" and (image_size < 8 or image_size & (image_size - 1)):
        return (
            f"halves the sides down to 4 pixels, and pictures have {image_size}: take a power of 2 "
            "from 8 on, or patchgan"
        )
    left = image_size // 2**layers
    if kind == "patchgan" and left < 3:
        return (
            f"has {layers} layers, after which {left} of {image_size} pixels are left of a side, and "
            "3 are needed: lower discriminator_layers"
        )
    return ""


def remembered(weights: dict, *passes: dict) -> dict:
    """Weights of a discriminator (nested dict) with the running statistics after some passes over
    batches, one after the other. passes: the statistics that each gave."""
    main = dict(weights.get("main", {}))
    for statistics in passes:
        for name, found in statistics.items():
            mix = lambda old, new: (1 - MOMENTUM) * old + MOMENTUM * new
            running = {key: mix(main[name][key], new) for key, new in found.items()}
            main[name] = main[name] | running
    return weights | {"main": main} if main else weights


def _leaky(x):
    return jax.nn.leaky_relu(x, 0.2)


def _normal(rngs, shape):
    return jax.random.normal(rngs.params(), shape, jnp.float32)


def _uniform(rngs, shape, bound: float):
    return jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound)
