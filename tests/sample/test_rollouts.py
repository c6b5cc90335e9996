"""Rollouts on several devices: with weights that each of them has whole, in as many rows as asked for."""

import dataclasses

import jax
import numpy as np
from support import tiny
from support.mesh import on_mesh

from janus_jax.model import sharding as sh
from janus_jax.sample import reported, rollouts

MODEL = tiny.small(transformer=dataclasses.replace(tiny.CONFIG.transformer, layers=1))


def test_weights_that_lie_whole_and_more_rows_draw_the_same(monkeypatch):
    """A token then reads no weight from another device; of four devices two share heads."""
    processor = tiny.processor()
    engines = []
    make = reported._Reporting
    keep = lambda *a, **how: engines.append(make(*a, **how)) or engines[-1]
    monkeypatch.setattr(reported, "_Reporting", keep)
    prompts = [processor.request(words) for words in ("a red circle", "two blue squares")]
    how = {"cfg_scale": 5.0, "temperature": 1.0}
    with on_mesh(1, 2, 2):
        model = rollouts.decoding(tiny.make_model(MODEL))
        whole = rollouts.on_each(model)
        qkv = [m.transformer.layers[0].qkv.kernel[...].sharding.spec for m in (model, whole)]
        assert [sh.FSDP in jax.tree.leaves(tuple(x)) for x in qkv] == [True, False]
        assert sh.TENSOR in jax.tree.leaves(tuple(qkv[1])), "tensor shards stay"
        specs = jax.tree.map(lambda x: tuple(x.sharding.spec), [whole.text_head, whole.image_head])
        assert sh.FSDP not in jax.tree.leaves(specs)
        found = [
            rollouts.drawings(m, prompts, [3, 4], 4, processor.unconditional, rows=rows, **how)
            for m, rows in ((model, 0), (whole, 13))
        ]
    assert [len(engine.taken) for engine in engines] == [16, 16]
    for (ids, told), (same, also) in zip(*found, strict=True):
        np.testing.assert_array_equal(ids, same)
        np.testing.assert_allclose(told, also, atol=1e-5)
