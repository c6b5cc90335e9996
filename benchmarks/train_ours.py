"""Our side of train_step.py: a child process that does `train_step`, a step a line."""

import contextlib
import functools
import importlib.util
import json
import pathlib
import sys
import time

import jax
import machine
import numpy as np
import train_rows

from janus_jax.config import schema
from janus_jax.config.read import build
from janus_jax.distributed import arrays, chips, large_pages, xla_flags
from janus_jax.model import config as sizes
from janus_jax.model import flops
from janus_jax.model import sharding as sh
from janus_jax.training import optim
from janus_jax.training.step import train_step
from janus_jax.training.tasks.janus import init_state

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def stage(number: int):
    """The fields of a stage of the paper, as its config has them."""
    path = CONFIGS / f"stage{number}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config().stages[path.stem]


def work(spec: dict):
    """(JanusConfig, trainable children, batch) of a spec: `llm`, or stage `batch` trained as another
    stage is."""
    config = build(sizes.JanusConfig, spec["config"], "", [])
    rows, length = spec["rows"], spec["length"]
    if spec["task"] == "llm":
        ratio = {"understanding": 0, "text": 1, "generation": 0}
        return config, train_rows.LLM, train_rows.batch(config, rows, length, ratio, "all")
    data = stage(spec["task"])
    batch = train_rows.batch(config, rows, length, data.ratio, data.supervise)
    return config, stage(spec["trainable"]).trainable, batch


def filled(params: dict, config: sizes.TransformerConfig) -> dict:
    """`params` with the language model's weights that both sides share."""
    flat = {
        jax.tree_util.keystr(p, simple=True, separator="."): x
        for p, x in jax.tree.leaves_with_path(params)
    }
    arrays = {}
    for path, layer, x in train_rows.weights(config):
        if layer is None:
            arrays[path] = x
        else:
            arrays.setdefault(path, np.empty(flat[path].shape, np.float32))[layer] = x
    put = lambda p, x: arrays.get(jax.tree_util.keystr(p, simple=True, separator="."), x)
    return jax.tree.map_with_path(lambda p, x: jax.device_put(put(p, x), x.sharding), params)


def products(config: sizes.TransformerConfig, tokens: int, dtype) -> float:
    """Seconds of all matrix products of a step of the language model, each measured alone: x w, g
    w' and x' g."""
    c, each = config, {}
    each[c.width, c.width] = 4 * c.layers
    each[c.width, c.mlp_width], each[c.mlp_width, c.width] = 2 * c.layers, c.layers
    each[c.width, c.vocabulary] = each.get((c.width, c.vocabulary), 0) + 1
    product = jax.jit(functools.partial(jax.numpy.matmul, preferred_element_type=jax.numpy.float32))
    total = 0.0
    for (d_in, d_out), count in each.items():
        ones = lambda *shape: jax.numpy.full(shape, 0.5, dtype)
        for a, b in (
            ((tokens, d_in), (d_in, d_out)),
            ((tokens, d_out), (d_out, d_in)),
            ((d_in, tokens), (tokens, d_out)),
        ):
            x, y = ones(*a), ones(*b)
            total += count * min(seconds(lambda x=x, y=y: product(x, y)) for _ in range(6))
    return total


def seconds(f) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - begin


def main(spec: dict):
    with contextlib.redirect_stdout(sys.stderr):  # our answers alone go to stdout
        xla_flags.apply()
    jax.set_mesh(sh.make_mesh(1, 1, 1, jax.devices()[:1]))
    config, trainable, batch = work(spec)
    done = flops.of_batch(batch, config)
    tx = optim.make(schema.Optim(**spec["optim"]), 1)
    init = jax.jit(init_state, static_argnums=(1, 2, 3))
    state = init(jax.random.key(0), config, tx, trainable)
    if spec["task"] == "llm":
        state = state.replace(trainable=filled(state.trainable, config.transformer))
    placed = arrays.put_batch(train_rows.naive(batch) if spec.get("naive") else batch)
    device = jax.local_devices()[0]
    options = {}
    if device.platform == "gpu":  # as a run on one of them
        options = xla_flags.of_step(1, False, xla_flags.ADDED)
    step = functools.partial(train_step, tx=tx)
    step = jax.jit(step, donate_argnums=0, compiler_options=options)
    chip = chips.of_device(device)

    def answer(word: str) -> dict:
        nonlocal state
        if word == "products":
            return {
                "seconds": products(config.transformer, spec["rows"] * spec["length"], config.dtype)
            }
        if word == "peak":
            stats = device.memory_stats() or {}
            return {"bytes": stats.get("peak_bytes_in_use", 0) or machine.peak()}
        begin = time.perf_counter()
        state, metrics = step(state, placed)
        jax.block_until_ready((state, metrics))
        took = time.perf_counter() - begin
        if word == "first":
            machine.forget_peak()
        return {"seconds": took, "loss": float(metrics["loss"])}

    machine.serve({
        "device": device.device_kind, "peak_flops": chip.flops if chip else None, "platform": device.platform,
        "tokens": done.tokens, "positions": spec["rows"] * spec["length"], "supervised": done.text + done.image,
        "flops": sum(flops.count(config, trainable, done).values()), "versions": {"jax": jax.__version__},
    }, answer)  # fmt: skip


if __name__ == "__main__":
    large_pages.begin_again()  # as `janus-jax train` does
    main(json.loads(sys.argv[1]))
