"""FID's Inception-v3: the features of the TensorFlow graph of 2015-12-05, in JAX.

It is not torchvision's Inception: its weights are others, its average pools leave the padding out of
the mean, and the last block takes the maximum instead (as in toshas/torch-fidelity 0.4.0,
feature_extractor_inceptionv3.py, whose names stand here). Batch norms are folded into the kernels.
The weights are a file that the user names, as these libraries download it:

    torch-fidelity, pytorch-fid: (weights|pt_inception)-2015-12-05-6726825d.pth
    clean-fid, StyleGAN: inception-2015-12-05.pt, a TorchScript archive
"""

import functools
import hashlib
import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import listed
from janus_jax.weights import pickles

CLASSES = 1008  # torchvision's have 1000
EPSILON = 1e-3  # of the batch norms

# A branch is a chain of convolutions, `mean` or `max` a pool of 3 x 3 before one; /2 is a stride of
# 2, without padding; after `a+b` both results stand side by side. Each has torch-fidelity's names,
# and below them those of the TensorFlow graph, which clean-fid's archive keeps.
A = (
    ("branch1x1", "conv"),
    ("branch5x5_1 branch5x5_2", "tower_conv tower_conv_1"),
    ("branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", "tower_1_conv tower_1_conv_1 tower_1_conv_2"),
    ("mean branch_pool", "mean tower_2_conv"),
)
B = (
    ("branch3x3/2", "conv/2"),
    ("branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3/2", "tower_conv tower_conv_1 tower_conv_2/2"),
    ("max/2", "max/2"),
)
C = (
    ("branch1x1", "conv"),
    ("branch7x7_1 branch7x7_2 branch7x7_3", "tower_conv tower_conv_1 tower_conv_2"),
    (
        "branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5",
        "tower_1_conv tower_1_conv_1 tower_1_conv_2 tower_1_conv_3 tower_1_conv_4",
    ),
    ("mean branch_pool", "mean tower_2_conv"),
)
D = (
    ("branch3x3_1 branch3x3_2/2", "tower_conv tower_conv_1/2"),
    (
        "branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4/2",
        "tower_1_conv tower_1_conv_1 tower_1_conv_2 tower_1_conv_3/2",
    ),
    ("max/2", "max/2"),
)
E_1 = (
    ("branch1x1", "conv"),
    ("branch3x3_1 branch3x3_2a+branch3x3_2b", "tower_conv tower_mixed_conv+tower_mixed_conv_1"),
    (
        "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a+branch3x3dbl_3b",
        "tower_1_conv tower_1_conv_1 tower_1_mixed_conv+tower_1_mixed_conv_1",
    ),
    ("mean branch_pool", "mean tower_2_conv"),
)
E_2 = (*E_1[:3], ("max branch_pool", "max tower_2_conv"))
STEM = {
    "Conv2d_1a_3x3": "conv", "Conv2d_2a_3x3": "conv_1", "Conv2d_2b_3x3": "conv_2", "Conv2d_3b_1x1": "conv_3",
    "Conv2d_4a_3x3": "conv_4",
}  # fmt: skip
BLOCKS = {
    "Mixed_5b": ("mixed", A), "Mixed_5c": ("mixed_1", A), "Mixed_5d": ("mixed_2", A), "Mixed_6a": ("mixed_3", B),
    "Mixed_6b": ("mixed_4", C), "Mixed_6c": ("mixed_5", C), "Mixed_6d": ("mixed_6", C), "Mixed_6e": ("mixed_7", C),
    "Mixed_7a": ("mixed_8", D), "Mixed_7b": ("mixed_9", E_1), "Mixed_7c": ("mixed_10", E_2),
}  # fmt: skip


@jax.jit
def pool3(params: Mapping, x: jax.Array) -> jax.Array:
    """The 2,048 features of pictures.

    Args:
        params: what `read_inception` gives.
        x: float32 [B, 299, 299, 3], scaled as the entrance says (`resizers.ENTRANCES`); other sides
            from 75 on work as in the libraries.

    Returns float32 [B, 2048].
    """
    x = _conv(params, "Conv2d_1a_3x3", x, 2, False)
    x = _conv(params, "Conv2d_2a_3x3", x, 1, False)
    x = _conv(params, "Conv2d_2b_3x3", x)
    x = _pool("max", x, 2, "VALID")
    x = _conv(params, "Conv2d_3b_1x1", x)
    x = _conv(params, "Conv2d_4a_3x3", x, 1, False)
    x = _pool("max", x, 2, "VALID")
    for name, (_, branches) in BLOCKS.items():
        x = jnp.concatenate([_branch(params, name, b, x) for b, _ in branches], -1)
    return x.mean((1, 2))


def _branch(params, block: str, branch: str, x):
    for step in branch.split():
        step, _, stride = step.partition("/")
        stride = int(stride or 1)
        if step in ("mean", "max"):
            x = _pool(step, x, stride, "SAME" if stride == 1 else "VALID")
        else:
            names = [f"{block}.{name}" for name in step.split("+")]
            x = jnp.concatenate([_conv(params, n, x, stride, stride == 1) for n in names], -1)
    return x


def _conv(params, name: str, x, stride: int = 1, padded: bool = True):
    """Convolution, batch norm and ReLU."""
    kernel, bias = params[name]
    around = [((n - 1) // 2,) * 2 if padded else (0, 0) for n in kernel.shape[:2]]
    x = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), around, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip
    return jax.nn.relu(x + bias)


def _pool(kind: str, x, stride: int, padding: str):
    window = functools.partial(
        jax.lax.reduce_window,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, stride, stride, 1),
        padding=padding,
    )
    if kind == "max":
        return window(x, -jnp.inf, jax.lax.max)
    return window(x, 0.0, jax.lax.add) / window(jnp.ones_like(x[:1, ..., :1]), 0.0, jax.lax.add)


def read_inception(path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The weights of a file: name -> (kernel float32 [kh, kw, in, out], bias float32 [out]), batch
    norm folded in. Raises UsageError for another network's, torchvision's among them."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name Inception's weights (docs/evaluation.md)")
    try:
        found = pickles.read_pickle(path)
        if isinstance(found, pickles.Record):
            tensors = pickles.script_tensors(found)
            leaves = ("weight", "", "beta", "mean", "var")
            head = "output"
            # The archive's towers are modules or names with an underscore.
            tensors = {_flat(name): x for name, x in tensors.items()}
        else:
            tensors = pickles.state_dict(path, found)[0]
            leaves = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
            head = "fc"
        return _folded(path, tensors, leaves, head)
    except UsageError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        raise UsageError(f"{error}") from None


def fingerprint(path) -> str:
    """The SHA-256 of a file, in hex; of the released .pth it begins with 6726825d."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(script: bool) -> dict[str, str]:
    """Our name of each convolution -> the file's."""
    out = {ours: f"layers.{theirs}" if script else ours for ours, theirs in STEM.items()}
    for block, (theirs, branches) in BLOCKS.items():
        for ours, other in branches:
            steps = zip(*(text.replace("+", " ").split() for text in (ours, other)))
            for a, b in steps:
                a, b = a.partition("/")[0], b.partition("/")[0]
                if a not in ("mean", "max"):
                    out[f"{block}.{a}"] = f"layers.{theirs}.{b}" if script else f"{block}.{a}"
    return out


def _flat(name: str) -> str:
    """layers.mixed_9.tower.mixed.conv.weight -> layers.mixed_9.tower_mixed_conv.weight"""
    parts = name.split(".")
    if len(parts) <= 4:
        return name
    return ".".join([*parts[:2], "_".join(parts[2:-1]), parts[-1]])


def _folded(path, tensors: dict, leaves: tuple[str, ...], head: str) -> dict:
    kernel, gamma, beta, mean, var = leaves
    names = _names(script=not gamma)
    due = [f"{their}.{leaf}" for their in names.values() for leaf in leaves if leaf]
    lacking = [name for name in (*due, f"{head}.weight") if name not in tensors]
    if lacking:
        raise UsageError(
            f"{path}: not FID's Inception: {len(lacking)} of its {len(due) + 1} arrays are not there:"
            f"{listed(lacking)}"
        )
    classes = tensors[f"{head}.weight"].shape[0]
    if classes != CLASSES:
        raise UsageError(
            f"{path}: an Inception of {classes} classes, and FID's has {CLASSES}: torchvision's own "
            f"weights, perhaps, with which nothing is called FID"
        )
    out = {}
    for ours, their in names.items():
        read = lambda leaf, their=their: tensors[f"{their}.{leaf}"].read().astype(np.float64)
        scale = (read(gamma) if gamma else 1) / np.sqrt(read(var) + EPSILON)
        folded = read(kernel).transpose(2, 3, 1, 0) * scale
        bias = read(beta) - read(mean) * scale
        out[ours] = (folded.astype(np.float32), bias.astype(np.float32))
        if not all(np.isfinite(x).all() for x in out[ours]):
            raise UsageError(f"{path}: {their} holds NaN or infinity; download the file again")
    return out
