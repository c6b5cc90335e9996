"""A model that every mesh of eight devices divides, and packed batches of the shapes world for
it."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import optax
from flax import nnx

from janus_jax.config import schema
from janus_jax.config.schema import Rows, Template
from janus_jax.data import catalog
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.packing import assemble
from janus_jax.data.pipeline import Batches
from janus_jax.data.processor import Processor
from janus_jax.data.random_pictures import RandomPictures
from janus_jax.data.toy import shapes_sources
from janus_jax.distributed import arrays
from janus_jax.model import batch as bt
from janus_jax.model import config as sizes
from janus_jax.model import sharding as sh
from janus_jax.model.janus import Janus, abstract
from janus_jax.training import optim
from janus_jax.training.state import TrainState
from janus_jax.training.step import train_step
from janus_jax.training.tasks import janus

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
ALL = tuple(name for name in CONFIG.children if name != "generation_encoder")
LENGTH, PICTURES, IMAGES = 192, 2, 2
# Tokens of an example: of the picture, and of text on average. The text's spread (log-normal) is a
# guess.
LENGTHS = {"understanding": (576, 110, 0.5), "text": (0, 1000, 0.8), "generation": (576, 40, 0.5)}
# A large eps keeps Adam's update smooth where a gradient is nearly zero: rounding stays rounding.
OPTIM = schema.Optim(learning_rate=1e-2, weight_decay=0.1, eps=1e-3)
STEPS = 10
TX = optim.make(OPTIM, STEPS)


WORLD = {  # of a config file: the shapes, on all devices
    "template": {"user": "User", "assistant": "Assistant", "system": ""},
    "data": {
        "datasets": {
            "questions": {"kind": "understanding", "path": "shapes:"},
            "sentences": {"kind": "text", "path": "shapes:"},
            "scenes": {"kind": "generation", "path": "shapes:"},
        }
    },
    "mesh": {"data": 1, "fsdp": -1, "tensor": 1},
}


def small(**changes) -> sizes.JanusConfig:
    return dataclasses.replace(CONFIG, **changes)


@functools.cache
def sources() -> dict:
    return {
        "understanding": shapes_sources.ShapesUnderstanding(),
        "text": shapes_sources.ShapesText(),
        "generation": shapes_sources.ShapesGeneration(),
    }


@functools.cache
def processor() -> Processor:
    template = Template(system="")
    tokenizer = catalog.learn_tokenizer(
        list(sources().values()), template, CONFIG.transformer.vocabulary, 200
    )
    counts = CONFIG.understanding_encoder.tokens, CONFIG.generation_encoder.tokens
    return Processor(tokenizer, template, *counts)


def encoder(rows: Rows, dropout: float = 0.0) -> ExampleEncoder:
    return ExampleEncoder(processor(), CONFIG, rows, "all", dropout)


def example(task: str, index: int, length: int = 90, dropout: float = 0.0) -> dict:
    """A Sequence (see batch.py) of record `index`, and where it is "from"."""
    encode = encoder(Rows(1, length, PICTURES, IMAGES), dropout)
    return encode(task, sources()[task][index], np.random.default_rng(index)) | {
        "from": (task, index)
    }


def row(examples: list[dict], length: int = LENGTH) -> dict:
    """One packed row of a batch, packed by hand."""
    encode = encoder(Rows(1, length, PICTURES, IMAGES))
    out = assemble(examples, length)
    out["understanding_images"] = np.zeros(
        (PICTURES, *[CONFIG.understanding_encoder.image_size] * 2, 3), np.uint8
    )
    out["generation_images"] = np.zeros(
        (IMAGES, *[CONFIG.generation_encoder.image_size] * 2, 3), np.uint8
    )
    for name, kind in (
        ("understanding_images", "understanding"),
        ("generation_images", "generation"),
    ):
        for k, e in enumerate(e for e in examples if e["from"][0] == kind):
            source, i = sources()[kind], e["from"][1]
            (out[name][k],) = encode.pixels(kind, source, i, source[i], e)[name]
    return out


def rows(count: int = 8) -> dict:
    """A batch (numpy); row i holds record i of each kind."""
    return stacked([
        row([example("understanding", i), example("generation", i), example("text", i)]) for i in range(count)
    ])  # fmt: skip


def stacked(all_rows: list[dict]) -> dict:
    return {name: np.stack([r[name] for r in all_rows]) for name in all_rows[0]}


def batches(
    sources_: dict,
    processor_,
    model,
    rows: Rows,
    ratio: dict,
    *,
    supervise: str = "all",
    dropout: float = 0.1,
    first: float = 0.0,
    seed: int = 3,
    weights: dict | None = None,
    steps: dict | None = None,
    ids: bool = False,
    **how,
) -> Batches:
    """An iterator over batches of one source a kind, or of sources by name -> (kind, source)."""
    pairs = {n: x if isinstance(x, tuple) else (n, x) for n, x in sources_.items()}
    entries = [
        Entry(
            n,
            kind,
            source,
            (weights or {}).get(n, 1.0),
            (steps or {}).get(n, ()),
            ids and kind == "generation",
        )
        for n, (kind, source) in pairs.items()
    ]
    mixture = Mixture(entries, ratio, seed, rows.count)
    return Batches(
        mixture, ExampleEncoder(processor_, model, rows, supervise, dropout, first), **how
    )


class Numbered:
    """A source of `count` records without content: record `i` is `i`."""

    def __init__(self, count: int):
        self.count, self.fingerprint = count, f"{count} records"

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return int(i)

    def where(self, i):
        return f"record {i}"


@dataclasses.dataclass
class Lengths:
    """In the place of `example_encoder.ExampleEncoder`: examples of LENGTHS, random, without content,
    cut to the row."""

    model = types.SimpleNamespace(
        transformer=types.SimpleNamespace(vocabulary=1),
        understanding_encoder=types.SimpleNamespace(image_size=1),
        generation_encoder=sizes.GenerationEncoderConfig(image_size=16),
        drawing="causal",
        senses={},
    )

    rows: Rows
    form: str = "chat"

    def __call__(self, kind: str, record, rng: np.random.Generator, at=None) -> dict:
        picture, text, spread = LENGTHS[kind]
        n = picture + max(int(text * np.exp(rng.normal(-(spread**2) / 2, spread))), 10)
        example = 1 + bt.TASKS.index(kind)
        if n > self.rows.length:
            example += bt.TRUNCATED
        blank = np.zeros(min(n, self.rows.length), np.int32)
        return {
            "tokens": blank,
            "role": blank,
            "supervised": blank,
            "understanding_images": blank[: int(kind == "understanding")],
            "generation_images": blank[: int(kind == "generation")],
            "example": np.array([example]),
        }

    def read(self, source, index: int):
        return source[index]

    def pixels(self, *_):
        return {}


def pictures(source, side: int, batch: int, seed: int, *part) -> RandomPictures:
    """Of one source, as stage 0 draws them."""
    only = {"understanding": 0, "text": 0, "generation": 1}
    return RandomPictures(
        Mixture([Entry("it", "generation", source)], only, seed, batch), side, *part
    )


def position(hosts: list) -> dict:
    """Where the `Batches` of several hosts stand, as a checkpoint has it."""
    streams = {n: stream for host in hosts for n, stream in host.get_state()["streams"].items()}
    return json.loads(json.dumps(hosts[0].get_state() | {"streams": streams}))


def make_state(tx, flames=ALL, config=CONFIG, seed: int = 0) -> TrainState:
    """A fresh state on the current mesh. Its shapes and shardings are those of `init_state`; its
    numbers come from numpy, which compiles nothing and gives the same ones everywhere."""
    init = functools.partial(janus.init_state, model=config, tx=tx, trainable=flames)
    state = sh.concrete(jax.eval_shape(init, jax.random.key(0)))
    zeros = jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), state.opt_state
    )
    return state.replace(
        step=jax.device_put(np.int32(0), state.step.sharding),
        nonfinite_updates=jax.device_put(np.int32(0), state.nonfinite_updates.sharding),
        trainable=drawn(state.trainable, seed),
        frozen=drawn(state.frozen, seed),
        opt_state=zeros,
    )


def make_model(config=CONFIG, seed: int = 0) -> Janus:
    graphdef, state = nnx.split(abstract(config))
    return nnx.merge(graphdef, drawn(sh.concrete(nnx.to_pure_dict(state)), seed))


def fan_in(key: str, shape: tuple) -> int:
    if len(shape) == 4:
        return int(np.prod(shape[:-1]))
    if key == "codebook":
        return 1
    if key in ("table", "positions"):
        return shape[-1]
    return shape[-2]


def drawn(shapes_, seed: int):
    """Norms at 1, biases at 0, the rest normal with the variance of its fan-in, by name and
    seed."""

    def draw(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        key = path[-1].key
        if key in ("scale", "bias", "patch_bias", "code_bias"):
            value = np.full(x.shape, key == "scale", x.dtype)
        else:
            rng = np.random.default_rng((seed, *name.encode()))
            value = (rng.normal(size=x.shape) * fan_in(key, x.shape) ** -0.5).astype(x.dtype)
        return jax.device_put(value, x.sharding)

    return jax.tree.map_with_path(draw, shapes_)


@functools.cache
def make_step(tx=TX, accumulate: int = 1):
    """The step as the loop jits it; the same one in all tests, so that it compiles once for each
    shape."""
    step = functools.partial(train_step, tx=tx, accumulate=accumulate)
    return jax.jit(step, donate_argnums=0)


def numbers(tree) -> dict:
    """Leaves as numpy, by dotted path."""
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(x) for path, x in leaves
    }


def same_bits(a, b):
    a, b = numbers(a), numbers(b)
    assert a.keys() == b.keys()
    different = [
        name
        for name in a
        if a[name].dtype != b[name].dtype or a[name].tobytes() != b[name].tobytes()
    ]
    assert not different, different


def put(batch: dict) -> dict:
    return arrays.put_batch(batch)


def with_ids(batch: dict, seed: int = 0) -> dict:
    """The batch with drawn image ids in place of its images: they vary, and compile in half the
    time."""
    shape = (*batch["generation_images"].shape[:2], CONFIG.generation_encoder.tokens)
    ids = np.random.default_rng(seed).integers(0, CONFIG.generation_encoder.codebook_size, shape)
    return {n: x for n, x in batch.items() if n != "generation_images"} | {
        "image_ids": ids.astype(np.int32)
    }


def specs(tree) -> dict:
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="."): x.sharding.spec for p, x in leaves}


def is_adam(x) -> bool:
    return isinstance(x, optax.ScaleByAdamState)
