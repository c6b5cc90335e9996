"""Fewer, wider tokens of a picture: pixel shuffle between understanding encoder and adaptor (paper
section 3.5; as InternVL has it, arXiv 2404.16821, section 3.1)."""

import math

from janus_jax.model import sharding as sh


def pixel_shuffle(x, times: int):  # [B, N, C] -> [B, N / times^2, times^2 * C]
    """Each square of `times` x `times` patches as one token: the features of its patches one after the
    other, row by row. The patches of x are a square grid, whose side `times` divides."""
    b, n, c = x.shape
    side = math.isqrt(n) // times
    x = x.reshape(b, side, times, side, times * c, out_sharding=sh.BATCH)
    return x.swapaxes(2, 3).reshape(b, side * side, times * times * c, out_sharding=sh.BATCH)
