"""Rollouts: weights that each device has whole, as many rows as asked for, answers that run on."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh

from janus_jax.model import sharding as sh
from janus_jax.sample import reported, rollouts

MODEL = tiny.small(transformer=dataclasses.replace(tiny.CONFIG.transformer, layers=1))


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "ids, kept",
    [
        ([7, 8, 2, 9, 1], [7, 8, 2]),  # the next turn's tag, though more was written
        ([7, 3, 1, 1], [7, 3]),
        ([7, 8, 1], [7, 8, 1]),
        ([7, 8, 9], [7, 8, 9]),  # all that it might write
        ([2, 7], [2]),
    ],
)
def test_an_answer_ends_with_its_first_end_of_sentence_or_role(monkeypatch, ids, kept):
    """What ends it is learned with it; behind that nothing is, though the decoder went on."""
    control = {"<|User|>": 2, "<|Assistant|>": 3}.get
    processor = types.SimpleNamespace(
        tokenizer=types.SimpleNamespace(eos=1, control=control),
        template=types.SimpleNamespace(user="<|User|>", assistant="<|Assistant|>"),
    )
    asked = []

    def told(model, requests, rows):
        asked.extend(requests)
        return [(np.array(ids), -np.arange(len(ids), dtype=np.float32)) for _ in requests]

    monkeypatch.setattr(rollouts, "ids_with_log_probabilities", told)
    question = np.array([5, 6]), np.array([0, 0]), ()
    found = rollouts.answers(None, processor, [question], [4], 2, temperature=1.0, most=5)
    assert [(x.number, x.eos, x.most, x.seed) for x in asked] == [(0, 1, 5, 4), (1, 1, 5, 4)]
    for cut, logs in found:
        assert cut.tolist() == kept and logs.tolist() == [-k for k in range(len(kept))]
