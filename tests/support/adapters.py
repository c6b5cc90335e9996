"""Adapters with planted pairs, and what they make of their base by plain numpy."""

import jax.numpy as jnp
import numpy as np

from janus_jax.weights.adapter_export import bases_of, export_adapter
from janus_jax.weights.source import open_source

RANK = 3
OPTIONS = {"rank": RANK, "alpha": 6.0, "rslora": 0, "dropout": 0.1, "targets": "attention,adaptors"}
TARGETS = (
    "transformer.blocks.attention.q", "transformer.blocks.down", "understanding_encoder.blocks.mlp.fc1",
    "understanding_encoder.blocks.attention.o", "generation_adaptor.fc2", "text_head.linear",
)  # fmt: skip
WHOLE = ("understanding_adaptor",)


def planted(base, seed: int = 0, targets=TARGETS, rank: int = RANK) -> dict[str, np.ndarray]:
    """Pairs of a base and a child trained whole, by their flat names."""
    source = open_source(base)
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (0.2 * rng.standard_normal(shape)).astype(np.float32)
    tensors = {}
    for path in targets:
        *layers, d_in, d_out = source.leaves[f"{path}.kernel"][0]
        tensors[f"lora.{path}.a"] = draw(*layers, d_in, rank)
        tensors[f"lora.{path}.b"] = draw(*layers, rank, d_out)
    names = (name for name in source.leaves if name.split(".")[0] in WHOLE)
    return tensors | {name: draw(*source.leaves[name][0]) for name in names}


def nested(flat: dict) -> dict:
    tree = {}
    for name, x in flat.items():
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = jnp.asarray(x)
    return tree


def save(directory, base, tensors: dict, begun=None, **options):
    """The adapter as a stage hands it on. begun: what it began with, where that is not the base."""
    source = open_source(base)
    export_adapter(
        directory, nested(tensors), trainable=WHOLE, begun=begun or bases_of([base]), options=OPTIONS | options,
        config=source.config, processor=source.processor(),
    )  # fmt: skip
    return directory


def merged(base: dict, tensors: dict, scaling: float = OPTIONS["alpha"] / RANK) -> dict:
    """The base's leaves with the pairs of `planted` merged, in float64."""
    out = {name: x.astype(np.float64) for name, x in base.items()}
    for name, x in tensors.items():
        if not name.startswith("lora."):
            out[name] = x
        elif name.endswith(".a"):
            path = name[len("lora.") : -2]
            out[f"{path}.kernel"] += scaling * (x.astype(np.float64) @ tensors[f"lora.{path}.b"])
    return out
