"""LPIPS (arXiv 1801.03924, version 0.1, over VGG16): how unlike two pictures look.

Both pictures go through VGG16 as trained on ImageNet; where its five resolutions end, features of
unit length are compared channel by channel, and a head weighs the channels by what people called
similar. Nothing here is trained. LlamaGen's module drops half of the channels at random before the
heads while its tokenizer trains (its loss module is in train mode); the measure has no dropout, so
there is none here.
"""

import hashlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.common import paths
from janus_jax.common.text import listed
from janus_jax.model.kernels import FLOAT32, einsum
from janus_jax.weights import tensors as ts
from janus_jax.weights.files import read_file
from janus_jax.weights.table import WeightsError

# Where torchvision's `features` has its convolutions, by resolution; between two lies a pool.
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
SHIFT = np.float32([-0.030, -0.088, -0.188])  # of pictures in [-1, 1]; ImageNet's mean in [0, 1]
SCALE = np.float32([0.458, 0.448, 0.450])
WIDTHS = (64, 128, 256, 512, 512)  # channels of each resolution
LEAST = 2 ** (len(VGG16) - 1)  # pixels a side, of which the last resolution has one

CONV = re.compile(r"(?:features|net\.slice[1-5])\.(\d+\.(?:weight|bias))$")
HEAD = re.compile(r"lin(\d+)\.model\.[01]\.weight$")
# VGG's classifier, by torchvision's names and timm's, and what the lpips package keeps twice.
BESIDE = re.compile(r"(classifier|pre_logits|head|scaling_layer|lins)\.")
V0_0 = "8e4c1102"  # how the SHA-256 of version 0.0's first head begins
BRING = (
    "bring torchvision's vgg16-397923af.pth and PerceptualSimilarity's lpips/weights/v0.1/vgg.pth, "
    "separated by a comma, or one file that holds both"
)


def lpips(params, x, y) -> jax.Array:
    """LPIPS of pairs of pictures, float32 [B]; 0 for equal ones.

    Args:
        params: what `read_lpips` gives.
        x: [B, H, W, 3] in [-1, 1]; a side has 16 pixels at least, else ValueError.
        y: as x.
    """
    if min(x.shape[1:3]) < LEAST:
        raise ValueError(
            f"pictures of {x.shape[1]} x {x.shape[2]} pixels: LPIPS halves them {len(VGG16) - 1} "
            f"times; give at least {LEAST} x {LEAST}"
        )
    total = 0.0
    for k, (a, b) in enumerate(zip(_features(params, x), _features(params, y))):
        apart = (_unit(a) - _unit(b)) ** 2
        total += einsum("bhwc,c->bhw", apart, params[f"lin{k}"]).mean((1, 2))
    return total


def _features(params, x):
    """float32 [B, h, w, C] where each resolution ends, the finest first."""
    x = (x.astype(jnp.float32) - SHIFT) / SCALE
    for k, block in enumerate(VGG16):
        if k:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        for i in block:
            x = jax.lax.conv_general_dilated(
                x, params[f"{i}.weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=FLOAT32,
            )  # fmt: skip
            x = jax.nn.relu(x + params[f"{i}.bias"])
        yield x


def _unit(x):
    """Channels of unit length. A position without any has no direction, and a root of 0 no slope:
    below the floor the length is constant."""
    square = jnp.sum(x * x, -1, keepdims=True)
    return x / (jnp.sqrt(jnp.maximum(square, 1e-30)) + 1e-10)


def read_lpips(path) -> dict[str, np.ndarray]:
    """The weights of LPIPS, float32, by VGG16's names without `features.` (kernels [3, 3, in, out])
    and `lin0` to `lin4` [C]. Their sizes are those of the files.

    Args:
        path: one file, or several separated by commas, which together hold VGG16 (torchvision's
            names, or the lpips package's) and the heads; .pth, .pt, .bin or .safetensors.

    Raises WeightsError naming the files, what they lack and what is too much.
    """
    found = {}
    problems = []
    for file in lpips_files(path):
        for name, tensor in _tensors(file).items():
            if name in found:
                problems.append(f"twice: {name}, the second time in {file}")
            found[name] = tensor
    if problems := problems + _misfits({name: x.shape for name, x in found.items()}):
        raise WeightsError(f"{path}: not VGG16 and LPIPS's heads:{listed(problems)}\n{BRING}")
    out = {}
    for name, tensor in found.items():
        x = tensor.read()
        if not ts.is_float(x.dtype) or not np.isfinite(x).all():
            raise WeightsError(
                f"{tensor.path}: {name} is {x.dtype}, or holds NaN or infinity; download it again"
            )
        x = x[0, :, 0, 0] if name.startswith("lin") else x
        out[name] = np.asarray(x.transpose(2, 3, 1, 0) if x.ndim == 4 else x, np.float32, "C")
    if hashlib.sha256(out["lin0"].tobytes()).hexdigest().startswith(V0_0):
        raise WeightsError(f"{path}: the heads are those of LPIPS 0.0; {BRING}")
    return out


def lpips_shapes() -> dict[str, tuple]:
    """name -> (shape, dtype) of what `read_lpips` gives of the released files."""
    out = {}
    before = 3
    for k, (block, width) in enumerate(zip(VGG16, WIDTHS)):
        for i in block:
            out[f"{i}.weight"] = ((3, 3, before, width), np.float32)
            out[f"{i}.bias"] = ((width,), np.float32)
            before = width
        out[f"lin{k}"] = ((width,), np.float32)
    return out


def lpips_files(path) -> list[pathlib.Path]:
    """The files that a word for `read_lpips` names, none for an empty one; `~` and `$NAME` are
    replaced. Raises WeightsError."""
    try:
        return [pathlib.Path(paths.expanded(name.strip())) for name in str(path).split(",") if name]
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None


def _tensors(file: pathlib.Path) -> dict[str, ts.Tensor]:
    """Those of a file by our names; what is not known keeps its own."""
    try:
        if not file.is_file():
            raise ValueError(f"{file}: no such file")
        tensors = read_file(file)[0]
        classifier = [x.read() for name, x in tensors.items() if name == "classifier.0.bias"]
    except (ValueError, OSError) as error:
        raise WeightsError(f"{error}; {BRING}") from None
    if any(np.isnan(x).any() for x in classifier):
        raise WeightsError(
            f"{file}: a VGG16 whose classifier is NaN, as in torchvision's vgg16_features-amdegroot, "
            f"which wants pictures of another scale; {BRING}"
        )
    out = {}
    for name, tensor in tensors.items():
        if conv := CONV.match(name):
            out[conv[1]] = tensor
        elif head := HEAD.match(name):
            out[f"lin{head[1]}"] = tensor
        elif not BESIDE.match(name):
            out[name] = tensor
    return out


def _misfits(found: dict[str, tuple]) -> list[str]:
    """A line for what is lacking, too much, or of a shape that does not follow from the others.
    found: our name -> shape in the file."""
    wanted = {}
    width = 3
    for k, block in enumerate(VGG16):
        for i in block:
            out = (*found.get(f"{i}.bias", ()), 0)[0]
            wanted |= {f"{i}.weight": (out, width, 3, 3), f"{i}.bias": (out,)}
            width = out
        wanted[f"lin{k}"] = (1, width, 1, 1)
    shown = lambda name: f"features.{name}" if name[0].isdigit() else name
    lacking = [f"lacks {shown(name)}" for name in wanted if name not in found]
    unknown = [
        f"too much: {shown(name)} {shape}" for name, shape in found.items() if name not in wanted
    ]
    if lacking or unknown:
        return lacking + unknown
    return [
        f"{shown(name)} is {found[name]}, and {shape} is due"
        for name, shape in wanted.items()
        if found[name] != shape
    ]
