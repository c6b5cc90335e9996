"""A model that every mesh of eight devices divides, and packed batches of the shapes world for it."""

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from janus_jax import optim, train_state
from janus_jax import sharding as sh
from janus_jax.data import catalog, shapes
from janus_jax.data.pipeline import Encoder, OpenPictures
from janus_jax.data.processor import Processor, Template
from janus_jax.model import config as sizes
from janus_jax.model.janus import Janus, abstract

CONFIG = sizes.JanusConfig(
    sizes.UnderstandingEncoderConfig(
        image_size=16, patch_size=4, width=32, mlp_width=64, layers=2, heads=8
    ),
    sizes.GenerationEncoderConfig(
        image_size=16, channels=8, multipliers=(1, 1, 2), res_blocks=1, z_channels=16, norm_groups=4,
        codebook_size=64, code_dim=8,
    ),
    sizes.TransformerConfig(width=32, mlp_width=64, layers=2, heads=8, vocabulary=384),
    image_head_width=32,
    dtype="float32",
    remat="dots",
)  # fmt: skip
ALL = tuple(name for name in sizes.CHILDREN if name != "generation_encoder")
LENGTH, PICTURES, IMAGES = 192, 2, 2
# A large eps keeps Adam's update smooth where a gradient is nearly zero, so that rounding stays rounding.
OPTIM = optim.Optim(learning_rate=1e-2, weight_decay=0.1, eps=1e-3)


def small(**changes) -> sizes.JanusConfig:
    return dataclasses.replace(CONFIG, **changes)


@functools.cache
def sources() -> dict:
    return {
        "understanding": shapes.ShapesUnderstanding(),
        "text": shapes.ShapesText(),
        "generation": shapes.ShapesGeneration(),
    }


@functools.cache
def processor() -> Processor:
    template = Template(system="")
    tokenizer = catalog.learn_tokenizer(sources(), template, CONFIG.transformer.vocabulary, 200)
    counts = CONFIG.understanding_encoder.tokens, CONFIG.generation_encoder.tokens
    return Processor(tokenizer, template, *counts)


def example(task: str, index: int, length: int = 90, dropout: float = 0.0) -> dict:
    """A Sequence (see batch.py) of record `index`."""
    encode = Encoder(task, sources()[task], processor(), length, "all", dropout, 0.0)
    return encode(index, np.random.default_rng(index))


def row(examples: list[dict], length: int = LENGTH) -> dict:
    """One packed row of a batch, packed by hand."""
    sizes_ = [len(e["tokens"]) for e in examples]
    rest = length - sum(sizes_)
    assert rest >= 0, f"{sum(sizes_)} tokens for {length}"
    join = lambda parts: np.concatenate([*parts, np.zeros(rest, np.int32)])
    packed = {name: join([e[name] for e in examples]) for name in ("tokens", "role", "supervised")}
    packed["tokens_segment_ids"] = join([np.full(n, i + 1) for i, n in enumerate(sizes_)]).astype(np.int32)
    packed["tokens_positions"] = join([np.arange(n) for n in sizes_])
    packed["example"] = np.concatenate([e["example"] for e in examples])
    for name, slots in (("pictures", PICTURES), ("images", IMAGES)):
        found = np.concatenate([e[name] for e in examples])
        packed[name] = np.resize(np.append(found, np.zeros(slots - len(found), int)), slots)
        packed[name + "_segment_ids"] = (np.arange(slots) < len(found)).astype(np.int32)
    out = OpenPictures(sources(), CONFIG, precomputed=False)(packed)
    del out["examples"]
    return out


def rows(count: int = 8) -> dict:
    """A batch (numpy); row i holds record i of each kind."""
    return stacked([
        row([example("understanding", i), example("generation", i), example("text", i)]) for i in range(count)
    ])  # fmt: skip


def stacked(all_rows: list[dict]) -> dict:
    return {name: np.stack([r[name] for r in all_rows]) for name in all_rows[0]}


def make_state(tx, flames=ALL, config=CONFIG, seed: int = 0) -> train_state.TrainState:
    """A fresh state on the current mesh: shapes and shardings of `init_state`, but drawn by numpy, which takes
    no compilation and gives the same numbers everywhere."""
    init = functools.partial(train_state.init_state, config=config, tx=tx, flames=flames)
    state = sh.concrete(jax.eval_shape(init, jax.random.key(0)))
    zeros = jax.tree.map(lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), state.opt_state)
    return state.replace(
        step=jax.device_put(np.int32(0), state.step.sharding),
        left_out=jax.device_put(np.int32(0), state.left_out.sharding),
        trainable=drawn(state.trainable, seed), frozen=drawn(state.frozen, seed), opt_state=zeros,
    )  # fmt: skip


def make_model(config=CONFIG, seed: int = 0) -> Janus:
    graphdef, state = nnx.split(abstract(config))
    return nnx.merge(graphdef, drawn(sh.concrete(nnx.to_pure_dict(state)), seed))


def drawn(shapes_, seed: int):
    """Norms at 1, biases at 0, the rest normal with the variance of its fan-in, by name and seed."""

    def draw(path, x):
        name, key = jax.tree_util.keystr(path, simple=True, separator="."), path[-1].key
        if key in ("scale", "bias", "patch_bias"):
            value = np.full(x.shape, key == "scale", x.dtype)
        else:
            rng = np.random.default_rng((seed, *name.encode()))
            fan_in = 1 if key == "codebook" else x.shape[-1] if key in ("table", "positions") else x.shape[-2]
            fan_in = int(np.prod(x.shape[:-1])) if len(x.shape) == 4 else fan_in
            value = (rng.normal(size=x.shape) * fan_in**-0.5).astype(x.dtype)
        return jax.device_put(value, x.sharding)

    return jax.tree.map_with_path(draw, shapes_)


def make_step(tx, accumulate: int = 1):
    """The step as train.py jits it, but compiled at the cheapest level: compiling is most of a test's time."""
    cheap = {"xla_backend_optimization_level": 0}
    step = functools.partial(train_state.train_step, tx=tx, accumulate=accumulate)
    return jax.jit(step, donate_argnums=0, compiler_options=cheap)


def numbers(tree) -> dict:
    """Leaves as numpy, by dotted path."""
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(x) for path, x in leaves}


def same_bits(a, b):
    a, b = numbers(a), numbers(b)
    assert a.keys() == b.keys()
    different = [
        name for name in a if a[name].dtype != b[name].dtype or a[name].tobytes() != b[name].tobytes()
    ]
    assert not different, different


def put(batch: dict) -> dict:
    return sh.put_batch(batch)
