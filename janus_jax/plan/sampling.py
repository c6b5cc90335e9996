"""What a token of drawing and of answering would take on one chip that is not here: `write` of
janus_jax/sample/programs.py compiled with the serving form of a model, and gone through."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from janus_jax.common.text import size, table
from janus_jax.distributed.chips import Chip
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.model.janus import build
from janus_jax.model.serving import cache_dtype, serving
from janus_jax.plan import aot, audit, hlo, rates
from janus_jax.sample import programs
from janus_jax.weights.load import compute_type

ROWS = (2, 32)
KINDS = (programs.IMAGE, programs.TEXT)
LENGTH = 640  # places of the cache: a short prompt and a picture
FILLED = 0.55  # of them, while a picture is drawn, on average
ASSUMED = (
    "guided drawing: two rows a picture; its pixels (the VQ decoder) and the reading of prompts are "
    "not in it",
    "compiled without the flags of training, as sampling runs",
)
GPU_ASSUMED = (
    "a token's kernels are one CUDA graph: each takes what it computes or moves, at least 1.5 us, "
    "and 1.0 us more; waits of the host are not in the ms",
    f"{FILLED:.0%} of the cache are filled, the mean of a picture, and no more is read where our kernels "
    "(janus_jax/model/gpu.py) run: they have run on no GPU yet, and give way to XLA's where one finds "
    "their results wrong",
    aot.GPU_ASSUMPTIONS[0],
)


def tokens(config: JanusConfig, chip: Chip, device, dtype: str | None, say=print) -> dict:
    """The plan as plain data: bytes, seconds and kernels of a token.

    config: the model's sizes.
    chip: what it is planned for.
    device: to compile for.
    dtype: as `janus-jax generate` takes it; None is the config's.
    say: is told the tables.
    """
    kept = dtype or config.dtype
    say(f"a token on one {chip.name}, weights in {kept}, a cache of {LENGTH} places")
    plan = {"chip": chip.name, "dtype": kept, "cache": LENGTH, "tokens": []}
    # A fake device's machine code need not be good.
    options = {"xla_backend_optimization_level": 0} if device.platform == "cpu" else {}
    kinds = KINDS
    if (config.image_head, config.drawing) != ("softmax", "causal"):
        kinds = (programs.TEXT,)
        say("drawing is not planned: this model does not draw one id after the other")
    with sh.mesh_context(sh.make_mesh(1, 1, 1, [device])):
        model = abstract(config, dtype)
        for rows in ROWS:
            program = lower(model, rows, LENGTH).compile(compiler_options=options)
            module = hlo.Module(program.as_text())
            plan["tokens"] += [of_token(module, chip, config, rows, kind) for kind in kinds]
    say(tokens_table(plan["tokens"]))
    plan["assumed"] = [rates.in_words(chip), *ASSUMED]
    if device.platform == "gpu":
        plan["assumed"] += GPU_ASSUMED
    say("\nAssumed\n" + "\n".join(f"- {line}" for line in plan["assumed"]))
    return plan


def abstract(config: JanusConfig, dtype: str | None) -> nnx.Module:
    """The shapes of the serving form of a model on the current mesh, kept in `dtype`."""
    int8 = dtype == "int8"
    compute = compute_type(dtype) if dtype else config.dtype

    def kept(path, x):
        exact = any(getattr(key, "key", None) == "generation_encoder" for key in path)
        return x if exact else x.astype(compute)

    def make():
        model = build(dataclasses.replace(config, dtype=compute), nnx.Rngs(0))
        graphdef, state = nnx.split(model)
        state = jax.tree.map_with_path(kept, nnx.to_pure_dict(state))
        return serving(nnx.merge(graphdef, state), int8)

    return jax.eval_shape(make)


def lower(model: nnx.Module, rows: int, length: int, told=None):
    """`write` lowered for so many rows and places of the cache; told: as `write` takes it."""
    mesh = jax.sharding.get_mesh()
    config = model.transformer.config
    dtype = model.transformer.dtype

    def put(shape, kind, spec=sh.BATCH):
        return jax.ShapeDtypeStruct(shape, kind, sharding=jax.NamedSharding(mesh, spec))

    leaves, tree = jax.tree.flatten(sh.concrete(model))
    keys = put(
        (rows, config.heads, length, config.width // config.heads),
        cache_dtype(dtype),
        sh.CACHE_BHSK,
    )
    whole, of_rows = np.int32(0), (rows,)
    writing = programs.Rows(
        put(of_rows, bool), put(of_rows, bool), put(of_rows, np.int32), put(of_rows, np.int32),
        put(of_rows, np.uint32), put(of_rows, np.int32), put((rows // 2, 2, 2), jnp.float32),
        put(of_rows, jnp.float32), put(of_rows, jnp.float32),
    )  # fmt: skip
    cache, hidden = [(keys, keys)] * config.layers, put((rows, config.width), dtype)
    drawn = jax.eval_shape(lambda: model.blank_drawn(rows))
    drawn = jax.tree.map(lambda x: put(x.shape, x.dtype, sh.CACHE_BHSK), drawn)
    how = {"tree": tree} | ({"told": told} if told else {})
    return programs.write.lower(leaves, cache, drawn, hidden, writing, whole, whole, **how)


def of_token(module: hlo.Module, chip: Chip, config: JanusConfig, rows: int, kind: int) -> dict:
    """Of one token of every row.

    module: `write`, compiled.
    chip: what runs it.
    config: the model's sizes.
    rows: how many it is compiled for.
    kind: programs.IMAGE or programs.TEXT.
    """

    cost = functools.partial(rates.graph_seconds, chip)
    found = audit.audit(module, {"data": 1}, chip, lambda loop: 1, kind, cost=cost, filled=FILLED)
    return {
        "writes": ("image", "text")[kind],
        "rows": rows,
        "kernels": found.total.kernels,
        "waits": found.waits,
        "bytes": found.total.bytes,
        "seconds": found.seconds,
        "images_per_s" if kind == programs.IMAGE else "tokens_per_s": rows
        / found.seconds
        / (2 * config.generation_encoder.tokens if kind == programs.IMAGE else 1),
    }


def tokens_table(found: list[dict]) -> str:
    rows = [
        [
            x["writes"],
            x["rows"],
            round(x["kernels"]),
            round(x["waits"]),
            size(x["bytes"]),
            1e3 * x["seconds"],
            f"{x['images_per_s']:.3g} images/s"
            if "images_per_s" in x
            else f"{x['tokens_per_s']:,.0f} tokens/s",
        ]
        for x in found
    ]
    return table(("writes", "rows", "kernels", "waits", "bytes", "ms", ""), rows)
