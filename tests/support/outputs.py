"""Inputs for transformers' Janus and ours, and how far their outputs lie apart."""

import jax
import numpy as np
import torch

from janus_jax.distributed import arrays as arrays_

TOLERANCE = 1e-4  # on the largest difference, for outputs of standard deviation 1


def error(got, want) -> float:
    """The largest difference, in standard deviations of `want`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"{got.shape} is not {want.shape}"
    assert want.std() > 1e-2, "an output that does not vary shows nothing"
    return np.abs(got - want).max() / want.std()


def same(got, want):
    assert error(got, want) < TOLERANCE


def run(f, model, *arrays):
    """f(model, *arrays), the arrays split over the batch axes as the model's inputs are."""
    return np.asarray(jax.jit(f)(model, *split(*arrays)))


def split(*arrays):
    return arrays_.put_batch(dict(enumerate(arrays))).values()


def pictures(seed, n, height, width):
    """[-1, 1], float32 [n, H, W, 3]."""
    return np.random.default_rng(seed).uniform(-1, 1, (n, height, width, 3)).astype(np.float32)


def nchw(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def nhwc(x):
    return x.permute(0, 2, 3, 1).numpy()


def integers(seed, high, *shape):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int32)


def long(x):
    return torch.from_numpy(np.asarray(x)).long()


def first_layer(stacked):
    return jax.tree.map(lambda x: x[0], stacked)
