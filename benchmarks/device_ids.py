"""A part of device.py: ids, losses and gradients of random models beside those that a CPU found.

    JAX_PLATFORMS=cpu python benchmarks/device_ids.py remake    # benchmarks/results/device-ids.json

Weights, pictures and prompts are numpy's draws from SEED, so that they are the same everywhere. The
VQ tokenizer has the released sizes, too; the rest is the quick start's model, in float32 with exact
matrix products, so that ids differ only where two of them are within float32's rounding. The VQ
tokenizer runs as it stands. Make the file again when what a CPU computes has changed.
"""

import dataclasses
import json
import pathlib
import sys

import device_report
import jax
import numpy as np
import sample
import train_rows
from flax import nnx

from janus_jax.distributed import arrays
from janus_jax.model import attention, presets
from janus_jax.model import config as sizes
from janus_jax.model import sharding as sh
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.janus import abstract
from janus_jax.training import loss

FILE = pathlib.Path(__file__).parent / "results" / "device-ids.json"
SEED = 14
PICTURES = 2  # through the VQ tokenizer of the released sizes
ROWS, LENGTH = 2, 208  # of the batch whose loss is compared
LONG = 4096  # rows of so many tokens have the device's own kind of attention
SHAPE = sample.Shape(
    prompt=20, drawn=32, asked=60, seen=9, picture=36, side=24, codes=64, compared=8
)
EQUAL = 0.995  # the share of VQ ids that must be equal: near ties may go either way
NEAR = 1e-3  # how far losses and norms of gradients may lie apart, relatively; kernels ten times


def drawn(module):
    """An abstract module (`jax.eval_shape`) with weights from SEED: norms near 1, biases near 0,
    the rest normal by the fan-in."""
    graphdef, state = nnx.split(module)

    def draw(path, x):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        rng = np.random.default_rng((SEED, *name.encode()))
        value = rng.standard_normal(x.shape, np.float32)
        leaf = str(path[-1].key)
        if leaf in ("scale", "bias", "patch_bias"):
            value = 0.1 * value + (leaf == "scale")
        elif leaf in ("table", "positions"):
            value *= x.shape[-1] ** -0.5
        elif leaf != "codebook":
            stacked = "blocks" in name.split(".")
            value *= np.prod(x.shape[int(stacked) : -1]) ** -0.5
        return jax.device_put(value.astype(x.dtype), x.sharding)

    return nnx.merge(graphdef, jax.tree.map_with_path(draw, sh.concrete(nnx.to_pure_dict(state))))


def vq_ids(config: sizes.GenerationEncoderConfig, count: int) -> np.ndarray:
    """int32 [count, N] of pictures of many scales, one at a time."""
    encoder = drawn(jax.eval_shape(lambda: GenerationEncoder(config, nnx.Rngs(0))))
    encode = jax.jit(lambda encoder, x: encoder.encode(x))
    rng = np.random.default_rng(SEED)
    out = []
    for _ in range(count):
        picture = np.zeros((config.image_size, config.image_size, 3), np.float32)
        for scale in (s for s in (1, 4, 12, 24) if config.image_size % s == 0):
            side = config.image_size // scale
            picture += np.kron(rng.uniform(-1, 1, (side, side, 3)), np.ones((scale, scale, 1)))
        picture = np.clip(picture / 2, -1, 1)[None].astype(np.float32)
        out.append(np.asarray(encode(encoder, jax.device_put(picture, sh.BATCH))))
    return np.concatenate(out)


def losses(model, config: sizes.JanusConfig) -> dict[str, float]:
    """The loss of a packed batch of all three kinds, and the norm of its gradient by child."""
    ratio = {"understanding": 1, "text": 1, "generation": 1}
    batch = arrays.put_batch(train_rows.batch(config, ROWS, LENGTH, ratio, "all"))
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, batch):
        total = lambda state: loss.janus_loss(nnx.merge(graphdef, state), batch)[0]
        value, gradients = jax.value_and_grad(total)(state)
        square = lambda tree: sum((x.astype("float32") ** 2).sum() for x in jax.tree.leaves(tree))
        return value, {name: square(gradients[name]) ** 0.5 for name in sizes.CHILDREN}

    value, norms = jax.device_get(run(state, batch))
    norms.pop("generation_encoder")  # its ids have no gradient
    return {"loss": float(value)} | {f"gradient of {k}": float(x) for k, x in norms.items()}


def found(toy: bool = False, say=lambda name, value: None) -> dict:
    """All that is compared, each told as it comes. toy: without the VQ tokenizer of the released
    sizes."""
    out = {}

    def add(name, value):
        out[name] = value.tolist() if isinstance(value, np.ndarray) else value
        say(name, out[name])

    jax.set_mesh(sh.make_mesh(1, 1, 1, jax.devices()[:1]))
    config = presets.quickstart()
    # Of itself the VQ tokenizer computes in true float32, whatever the platform's default is.
    add("VQ ids, the quick start's sizes", vq_ids(config.generation_encoder, 4 * PICTURES))
    if not toy:
        add("VQ ids, the released sizes", vq_ids(sizes.GenerationEncoderConfig(), PICTURES))
    with jax.default_matmul_precision("highest"):
        model = drawn(abstract(config))
        data = sample.inputs(SHAPE.asked, SHAPE)
        side = sample.Ours(model, SHAPE)
        add("greedy text ids", side.answer(data, SHAPE.drawn))
        add("guided image ids", side.draw(data, SHAPE.drawn))
        add("likeliest image ids, guided", side.draw(data, SHAPE.drawn, temperature=0.0))
        own = attention.choose("auto", LONG, config.dtype)
        for name, kind in (("plain attention", "plain"), ("the device's own attention", own)):
            its = dataclasses.replace(config, attention=kind)
            add(f"a batch, {name}", losses(drawn(abstract(its)), its))
    return out


def compare(here: device_report.Here) -> None:
    """Each finding beside the stored one."""
    stored = json.loads(FILE.read_text())

    def say(name, value):
        want = stored[name]
        if isinstance(value, dict):
            apart = max(abs(value[k] - x) / abs(x) for k, x in want.items())
            here.say(
                name,
                apart < (NEAR if "plain" in name else 10 * NEAR),
                numbers=len(want),
                furthest_apart=apart,
            )
            return
        value, want = np.array(value), np.array(want)
        same = value == want
        share = float(same.mean())
        right = share >= (EQUAL if name.startswith("VQ") else 1.0)
        first = "" if same.all() else str(np.argwhere(~same)[0].tolist())
        here.say(
            name, right, numbers=same.size, different_ids=len(np.unique(want)), equal=share, first_unequal=first
        )  # fmt: skip

    found(here.toy, say)


if __name__ == "__main__":
    if sys.argv[1:] == ["remake"]:
        FILE.write_text(json.dumps(found(say=lambda name, value: print(name)), indent=None) + "\n")
    else:
        device_report.child({"compare": compare})
