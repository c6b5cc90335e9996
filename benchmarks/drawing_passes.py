"""What a picture costs at the true shapes of Janus-1.3B in each way of drawing: random weights in
bfloat16, one picture under guidance (two rows) behind a prompt of 20 tokens.

    python benchmarks/drawing_passes.py --ways=causal,masked,scales --out=runs/drawing_passes

Measured: 24 tokens of drawing one id after the other, behind the first 8; two passes of masked drawing
over all 576 tokens, with the prompt's reading; a picture drawn scale by scale, 1,216 tokens. Each is run
before, to compile. Times of pictures of 576 steps, and of 8 and 32 passes, are these times so many. Of each
time there is the clock's and the processor's (all threads): the second is nearly the same whatever
else runs beside. The tokenizer's decoder, which is the same for all, is not run, nor is the
understanding encoder, of which one layer is made.

    --ways=...        which of them
    --out=DIR         where table.md and figures.json go (default: runs/drawing_passes)
    --shapes=1.3b     or toy, to try the program
"""

import argparse
import dataclasses
import json
import operator
import pathlib
import time

import jax
import machine
import ml_dtypes
import numpy as np
from flax import nnx

from janus_jax.common.text import table
from janus_jax.model import presets
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.model.serving import PARTS, serving
from janus_jax.sample import decode, masked, scales
from janus_jax.sample.reading import Prompt

PROMPT, SKIPPED, TOKENS = 20, 8, 24
SIDES = {24: (1, 2, 3, 4, 6, 9, 13, 18, 24), 6: (1, 2, 3, 4, 6)}  # by the side of a picture's grid
GUIDANCE = 5.0
POOL = np.random.default_rng(0).normal(size=1_048_573).astype(np.float32)  # a prime


def config_of(way: str, shapes: str):
    """The model that draws this way; its understanding encoder has one layer."""
    config = presets.janus_1_3b() if shapes == "1.3b" else presets.quickstart()
    tower = dataclasses.replace(config.understanding_encoder, layers=1)
    vq = config.generation_encoder
    if way == "scales":
        vq = dataclasses.replace(vq, scales=SIDES[vq.grid[0]], codebook_l2_norm=False)
    return dataclasses.replace(
        config, understanding_encoder=tower, generation_encoder=vq, drawing=way, dtype="bfloat16"
    )


def random_model(config):
    """A Janus of random weights in the form that decodes, made layer by layer. The tokenizer is kept in
    float32, as `load` keeps it."""
    model = abstract(config)
    graphdef, state = nnx.split(model)
    shapes = sh.concrete(nnx.to_pure_dict(state))

    def made(path, x, layer=None):
        name = ".".join(str(k.key) for k in path)
        shape = x.shape if layer is None else x.shape[1:]
        kind = np.float32 if name.startswith("generation_encoder.") else ml_dtypes.bfloat16
        if name.endswith("scale"):
            return jax.numpy.ones(shape, kind)
        if name.endswith("bias"):
            return jax.numpy.zeros(shape, kind)
        gain = 0.02 if name.endswith("table") else shape[-2] ** -0.5
        pool = (POOL * np.float32(gain)).astype(kind)
        return jax.numpy.asarray(np.resize(pool, shape))

    def part(name: str, i: int | None = None):
        own = operator.attrgetter(name)(model)
        at = tuple(jax.tree_util.DictKey(k) for k in name.split("."))
        inner = sh.concrete(nnx.to_pure_dict(nnx.state(own)))
        found = jax.tree.map_with_path(lambda path, x: made((*at, *path), x, i), inner)
        return nnx.merge(nnx.graphdef(own), found)

    def early(path, x):
        name = ".".join(str(k.key) for k in path)
        if name.startswith(tuple(f"{one}." for one in PARTS)):
            return jax.ShapeDtypeStruct(x.shape, x.dtype)  # made later, a layer at a time
        return made(path, x)

    return serving(nnx.merge(graphdef, jax.tree.map_with_path(early, shapes)), part=part)


def timed(work) -> dict[str, float]:
    """Seconds of the clock and of the processor."""
    clock, used = time.perf_counter(), time.process_time()
    work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - used}


def less(more: dict, fewer: dict, by: int = 1) -> dict[str, float]:
    return {name: (more[name] - fewer[name]) / by for name in more}


def pairs(config) -> list[tuple[Prompt, Prompt]]:
    """The prompts of both branches of guidance."""
    ids = np.random.default_rng(1).integers(0, config.transformer.vocabulary, (2, PROMPT))
    return [tuple(Prompt(one.astype(np.int32)) for one in ids)]


def of_causal(model, how) -> dict:
    draw = lambda count: decode.image_ids(model, *how, count)
    draw(2)
    token = less(timed(lambda: draw(SKIPPED + TOKENS)), timed(lambda: draw(SKIPPED)), TOKENS)
    count = model.config.generation_encoder.tokens
    whole = {name: x * count for name, x in token.items()}
    return {
        "a token, one id after the other": (token, f"{TOKENS} tokens"),
        f"a picture, {count} steps": (whole, f"{count} x a token"),
    }


def of_masked(model, how) -> dict:
    count = model.config.generation_encoder.tokens
    draw = lambda steps: masked.image_ids_in(model, 0, *how, count, steps=steps)
    draw(1)
    a_pass = {name: x / 2 for name, x in timed(lambda: draw(2)).items()}
    found = {f"a masked pass of {count} tokens": (a_pass, "2 passes and the prompt, halved")}
    for steps in (32, 8):
        whole = {name: x * steps for name, x in a_pass.items()}
        found[f"a picture, masked, {steps} passes"] = whole, f"{steps} x a pass"
    return found


def of_scales(model, how) -> dict:
    vq = model.config.generation_encoder
    draw = lambda: scales.image_ids_by_scale(model, *how, vq.tokens)
    draw()
    return {
        f"a picture by scales, {len(vq.scales)} passes of {vq.tokens} tokens": (
            timed(draw), "measured whole, with the prompt",
        ),
    }  # fmt: skip


WAYS = {"causal": of_causal, "masked": of_masked, "scales": of_scales}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--ways", default="causal,masked,scales")
    parser.add_argument("--out", default="runs/drawing_passes")
    parser.add_argument("--shapes", default="1.3b", choices=("1.3b", "toy"))
    asked = parser.parse_args()
    out = pathlib.Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "figures.json"
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    for way in asked.ways.split(","):
        with jax.set_mesh(sh.make_mesh(1, 1, 1, jax.devices()[:1])):
            model = random_model(config_of(way, asked.shapes))
            made = WAYS[way](model, (pairs(model.config), [0], [0], GUIDANCE, 1.0))
        del model
        found |= {name: [*of] for name, of in made.items()}
        kept.write_text(json.dumps(found, indent=2), "utf-8")
        print(way, f"peak {machine.peak() / 1e9:.1f} GB", made, flush=True)
    rows = [
        [name, f"{x['clock']:.3g}", f"{x['processor']:.3g}", how]
        for name, (x, how) in found.items()
    ]
    told = table(["", "s by the clock", "s of the processor", "from"], rows)
    (out / "table.md").write_text(f"{machine.name()}\n\n{told}\n", "utf-8")
    print(told)


if __name__ == "__main__":
    main()
