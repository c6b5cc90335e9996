"""Point clouds to continuous features: a small point transformer, after Point-BERT (arXiv
2111.14819) and Point-MAE (arXiv 2203.06604).

Centres that lie far from each other are chosen, the nearest points of each make a group, a small
PointNet (arXiv 1612.00593) makes one token of a group, and the tokens, with their centres' places, go
through the layers of a ViT. The order of the points does not matter.

Letters: B clouds, P points, X numbers of a point, G groups, K points of a group, C width.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from janus_jax.model import sharding as sh
from janus_jax.model.attention import full
from janus_jax.model.layers import MLP, stack, through_layers
from janus_jax.model.understanding_encoder import EncoderBlock, layer_norm


class Encoder(nnx.Module):
    """Clouds of one size to features of their groups; `attention` as in attention.full."""

    def __init__(self, sizes, dtype, remat: str, attention: str, rngs: nnx.Rngs):
        c = sizes.width
        self.alone = MLP(sizes.channels, c // 2, c // 2, dtype, rngs)
        self.together = MLP(c, c, c, dtype, rngs)
        self.place = MLP(3, c, c, dtype, rngs)
        self.blocks = stack(lambda rngs: EncoderBlock(sizes, dtype, rngs), sizes.layers, rngs)
        self.norm = layer_norm(c, dtype, rngs)
        self.sizes = sizes
        self.dtype = jnp.dtype(dtype)
        self.remat = remat
        self.kind = attention

    def __call__(self, clouds):  # float32 [B, P, X] -> [B, G, C]
        g = self.sizes.groups
        k = self.sizes.neighbours
        grouping = functools.partial(grouped, groups=g, neighbours=k)
        split = sh.per_device(grouping, (sh.BATCH,), (sh.BATCH, sh.BATCH))
        groups, centres = split(clouds.astype(jnp.float32))
        x = self.token(groups) + self.place(centres)
        attend = functools.partial(full, kind=self.kind)
        return self.norm(through_layers(self.blocks, x, self.remat, attend))

    def token(self, groups):  # [B, G, K, X] -> [B, G, C]
        b, g, k, x = groups.shape
        own = self.alone(groups.reshape(b, g * k, x, out_sharding=sh.ACT_BTD))
        own = own.reshape(b, g, k, -1)
        most = jnp.broadcast_to(own.max(2, keepdims=True), own.shape)
        both = jnp.concatenate([own, most], -1).reshape(b, g * k, -1, out_sharding=sh.ACT_BTD)
        return self.together(both).reshape(b, g, k, -1).max(2)


def grouped(clouds, groups: int, neighbours: int):
    """The groups [B, G, K, X] of clouds [B, P, X], places relative to their centres, and the centres
    [B, G, 3]; float32."""
    places = clouds[..., :3]
    centres = jnp.take_along_axis(places, furthest(places, groups)[..., None], 1)
    nearest = jax.lax.top_k(-distances(centres, places), neighbours)[1]  # [B, G, K]
    found = jax.vmap(lambda cloud, at: cloud[at])(clouds, nearest)
    return found.at[..., :3].add(-centres[:, :, None]), centres


def distances(a, b):  # [B, G, 3], [B, P, 3] -> squared, float32 [B, G, P]
    return jnp.square(a[:, :, None] - b[:, None]).sum(-1)


def furthest(places, count: int):
    """Farthest point sampling: int32 [B, count] of places [B, P, 3]. The first is the one furthest
    from the mean, each next the one furthest from those that are chosen."""
    take = lambda at: jnp.take_along_axis(places, at[:, None, None], 1)
    first = distances(places.mean(1, keepdims=True), places)[:, 0].argmax(-1)

    def choose(carry, _):
        at, least = carry
        least = jnp.minimum(least, distances(take(at), places)[:, 0])
        return (least.argmax(-1), least), at

    start = first, jnp.full(places.shape[:2], jnp.inf)
    return jax.lax.scan(choose, start, None, length=count)[1].swapaxes(0, 1)
