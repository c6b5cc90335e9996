"""What a detector of scenes is trained on: where things have their centres, what they are, how
large, and the ground.

Letters: B pictures, N places for things (data.toy.scenes.MOST), M cells a side of the maps.
"""

import jax
import jax.numpy as jnp

from janus_jax.model.batch import pixels
from janus_jax.model.detector import Detector

_SPREAD = 0.8  # cells: standard deviation of the hill round a centre
_NEAR = 0.4  # of a hill's height, from which on a cell learns what the thing is


def targets(batch: dict, cells: int) -> dict:
    """Maps of a batch of `data.scene_batches`, `cells` a side: "heat" float32 [B, M, M], 1 at a
    centre's cell and falling off round it; "centre" bool [B, M, M], those cells; "thing" and "size"
    int32 [B, M, M], of the nearest thing."""
    there = batch["things"][..., None, None] >= 0
    at = (batch["centres"] * cells)[..., None, None]  # [B, N, 2, 1, 1]
    rows = jnp.arange(cells)[:, None]
    columns = jnp.arange(cells)[None]
    x = jnp.clip(jnp.floor(at[:, :, 0]), 0, cells - 1)
    y = jnp.clip(jnp.floor(at[:, :, 1]), 0, cells - 1)
    distance = (columns - x) ** 2 + (rows - y) ** 2  # [B, N, M, M], from the centre's cell
    distance = jnp.where(there, distance, jnp.inf)
    nearest = distance == distance.min(1, keepdims=True)
    first = nearest & (jnp.cumsum(nearest, 1) == 1)
    of_nearest = lambda values: jnp.where(first, values[..., None, None], 0).sum(1)
    return {
        "heat": jnp.exp(-distance.min(1) / (2 * _SPREAD**2)),
        "centre": distance.min(1) == 0,
        "thing": of_nearest(batch["things"]),
        "size": of_nearest(batch["sizes"]),
    }


def detector_loss(model: Detector, batch: dict):
    """(loss, metrics). The heat map's loss is CenterNet's (arXiv 1904.07850, equation 1), a sum
    over cells by the number of things; the others are cross-entropies."""
    found = model(pixels(batch["images"]))
    due = targets(batch, found["centre"].shape[1])
    centre = due["centre"]
    count = jnp.maximum(centre.sum(), 1)
    p = jax.nn.sigmoid(found["centre"])
    hit = -((1 - p) ** 2) * jax.nn.log_sigmoid(found["centre"])
    miss = -((1 - due["heat"]) ** 4) * p**2 * jax.nn.log_sigmoid(-found["centre"])
    near = jnp.where(due["heat"] > _NEAR, due["heat"], 0)
    near = near / jnp.maximum(near.sum(), 1)
    terms = {
        "centres": jnp.where(centre, hit, miss).sum() / count,
        "things": (near * _entropy(found["thing"], due["thing"])).sum(),
        "sizes": (near * _entropy(found["size"], due["size"])).sum(),
        "ground": _entropy(found["ground"], batch["ground"]).mean(),
    }
    named = jnp.where(centre, found["thing"].argmax(-1) == due["thing"], False).sum() / count
    return sum(terms.values()), terms | {"thing_accuracy": named.astype(jnp.float32)}


def _entropy(logits, ids):  # [..., V], int32 [...] -> [...]
    chosen = ids[..., None] == jnp.arange(logits.shape[-1])
    return -jnp.where(chosen, jax.nn.log_softmax(logits), 0).sum(-1)
