"""What is told of memory is what arrays take, and too little is refused."""

import io

import jax
import pytest
from flax import nnx
from support import tiny

from janus_jax.model import config as sizes
from janus_jax.model import presets
from janus_jax.model.serving import blank_cache
from janus_jax.sample import memory
from janus_jax.weights import load
from janus_jax.weights.source import open_source


def test_the_semantic_decoders_cache_is_what_its_arrays_take(one_device):
    box = sizes.SemanticDecoderConfig(width=32, mlp_width=64, layers=3, heads=4)
    config = tiny.small(understanding="semantic", generation="semantic", semantic_decoder=box)
    janus, ablated = (
        memory.Plan(c, 0, ("float32", "float32"), rows=3, text=6, pictures=1, drawings=1).needs()
        for c in (tiny.CONFIG, config)
    )
    held = sum(x.nbytes for x in jax.tree.leaves(tiny.make_model(config).blank_drawn(3)))
    assert ablated["cache"] - janus["cache"] == held > 0


def test_memory_is_what_arrays_take(folder, one_device):
    source = open_source(folder)
    plan = memory.Plan.of(source, None, rows=3, text=6, pictures=1, drawings=1)
    need, (model, _) = plan.needs(), load.load(folder)
    assert need["weights"] == sum(x.nbytes for x in jax.tree.leaves(nnx.state(model)))
    prompt = 6 + (16 + 2)
    a_place = 2 * tiny.CONFIG.transformer.layers * 32 * 4
    assert need["cache"] == (3 * (prompt + 16) + 2 * prompt) * a_place
    more = memory.Plan.of(source, None, rows=3, text=6, pictures=1, drawings=1, kept=50)
    assert more.needs()["cache"] == need["cache"] + 50 * a_place
    assert plan.dtypes == ("float32", "float32")
    half = memory.Plan.of(source, "bfloat16", rows=3, text=6, pictures=1, drawings=1)
    loaded, _ = load.load(folder, dtype="bfloat16")
    assert half.weights == sum(x.nbytes for x in jax.tree.leaves(nnx.state(loaded)))
    (keys, _), *_ = blank_cache(loaded, 1, 1)
    kept = keys.dtype.itemsize  # that of float32 where XLA decodes on a CPU
    assert half.needs()["cache"] == need["cache"] * kept // 4
    eighth = memory.Plan.of(source, "int8", rows=3, text=6, pictures=1, drawings=1)
    loaded, _ = load.load(folder, dtype="int8")
    assert eighth.dtypes == ("int8", loaded.config.dtype)
    scales = sum(
        x.nbytes
        for path, x in jax.tree.leaves_with_path(nnx.state(loaded))
        if "scale" in str(path[-2:])
    )
    held = sum(x.nbytes for x in jax.tree.leaves(nnx.state(loaded)))
    assert held - scales <= eighth.weights <= held
    with pytest.raises(ValueError, match="dtype is 'int4': must be one of float32, bfloat16, int8"):
        memory.Plan.of(source, "int4", rows=3, text=6, pictures=1, drawings=1)
    full = memory.Plan(
        presets.janus_1_3b(), 0, ("bfloat16", "bfloat16"), rows=2, text=64, pictures=0, drawings=1
    )
    cache = 2 * 24 * (2 * 640 + 2 * 64) * 2048 * kept
    assert full.needs() == {
        "weights": 0,
        "cache": cache,
        "temporaries": cache // 24 + 3 * 4 * 384 * 384 * 128,
    }


def test_too_little_memory_is_refused_or_warned_about_with_the_numbers(
    folder, one_device, monkeypatch
):
    source, work = open_source(folder), dict(rows=2, text=400, pictures=1, drawings=1)
    need, out = memory.Plan.of(source, None, **work).needs(), io.StringIO()
    monkeypatch.setattr(memory, "free", lambda device: need["weights"])
    with pytest.raises(
        ValueError, match=r"memory: weights and cache take .* MB, 508 kB are free on cpu; use"
    ):
        memory.announce("m", source, None, out, **work)
    monkeypatch.setattr(memory, "free", lambda device: sum(need.values()) - 1)
    memory.announce("m", source, None, out, **work)
    assert "WARNING: that may not fit" in out.getvalue()
    monkeypatch.undo()
    assert memory.free(jax.devices()[0]) > 1e6
