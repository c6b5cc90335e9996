"""Probes against gradients worked out outside; the training that they look at is not touched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh

from janus_jax.model import batch as bt
from janus_jax.training import probes
from janus_jax.training.meter import numbers
from janus_jax.training.step import train_step

LAYERS = tiny.CONFIG.transformer.layers


@functools.cache
def step(accumulate: int = 1):
    """Looks at every second step."""
    train = functools.partial(train_step, tx=tiny.TX, accumulate=accumulate)
    return jax.jit(probes.probed(train, 2, bt.TASKS, accumulate), donate_argnums=0)


def rows(without: str = "", seed: int = 0) -> dict:
    """Rows of unequal make-up, so that a mean of rows' means would be another."""
    kinds = [
        ["understanding", "generation", "text"], ["generation", "generation"],
        ["understanding", "text"], ["text"], ["understanding"], ["generation"],
        ["text", "generation"], ["understanding", "generation"],
    ]  # fmt: skip
    made = [
        tiny.row([tiny.example(kind, 3 * i + k) for k, kind in enumerate(row) if kind != without])
        for i, row in enumerate(kinds)
    ]
    return tiny.with_ids(tiny.stacked(made), seed)


def mean_loss(transformer, state, batch, kind: str):
    """Of one kind, with all logits at once."""
    model = nnx.merge(state.graphdef, state.params | {"transformer": transformer})
    ids = batch["image_ids"].reshape(len(batch["tokens"]), -1)
    slots = [batch[name] for name in ("understanding_slots", "generation_slots")]
    where = batch["positions"], batch["segment_ids"]
    hidden = model(batch["tokens"], batch["understanding_images"], ids, *slots, *where)
    if kind == "generation":
        there = batch["image_targets"] > 0
        targets = jnp.take_along_axis(ids, jnp.maximum(batch["image_targets"] - 1, 0), axis=1)
        last, x = model.image_head.fc2, model.image_head.features(hidden)
    else:
        there = (batch["text_targets"] >= 0) & (batch["tasks"] == 1 + bt.TASKS.index(kind))
        targets = jnp.maximum(batch["text_targets"], 0)
        last, x = model.text_head.linear, hidden
    logits = jnp.matmul(x, last.kernel[...], precision="highest")
    logits = logits if last.bias is None else logits + last.bias[...]
    hit = targets[..., None] == jnp.arange(logits.shape[-1])
    losses = jnp.where(hit, jax.nn.log_softmax(logits), 0).sum(-1)
    return -jnp.where(there, losses, 0).sum() / there.sum()


@functools.cache
def expected() -> dict:
    """By name of the metric, in float64 from JAX's own gradients."""
    with on_mesh():
        state, batch = tiny.make_state(tiny.TX), tiny.put(rows())
        gradients = lambda state, batch: [
            jax.grad(mean_loss)(state.trainable["transformer"], state, batch, kind)
            for kind in bt.TASKS
        ]
        found = [tiny.numbers(gradient) for gradient in jax.jit(gradients)(state, batch)]
    vectors = {"": [np.concatenate([x.ravel() for x in g.values()]) for g in found]}
    for i in range(LAYERS):
        of_layer = lambda g, i=i: [x[i].ravel() for name, x in g.items() if "blocks" in name]
        vectors[f"/{i}"] = [np.concatenate(of_layer(g)) for g in found]
    out = {}
    for where, of in vectors.items():
        of = [x.astype(np.float64) for x in of]
        norms = [np.linalg.norm(x) for x in of]
        out |= {f"probes/norm_{k}{where}": n for k, n in zip(bt.TASKS, norms)}
        out[f"probes/cosine{where}"] = of[0] @ of[2] / norms[0] / norms[2]
    return out


def looked(batch, **how) -> tuple[dict, dict]:
    """(probes, other metrics) of a step 2."""
    state = tiny.make_state(tiny.TX)
    state = state.replace(step=jax.device_put(np.int32(1), state.step.sharding))
    metrics = numbers(step(**how)(state, tiny.put(batch))[1])
    found = {name: metrics.pop(name) for name in [*metrics] if name.startswith("probes/")}
    return found, metrics


def test_norms_and_cosines_are_those_of_gradients_worked_out_apart(one_device):
    got, _ = looked(rows())
    assert got == pytest.approx(expected(), rel=1e-6, abs=1e-6)
    assert len(got) == 4 * (1 + LAYERS)
    assert 0.001 < abs(got["probes/cosine"]) < 0.999


@pytest.mark.parametrize(
    "mesh, accumulate",
    [((2, 4, 1), 1), pytest.param((1, 8, 1), 1, marks=pytest.mark.slow),
     pytest.param((2, 2, 2), 2, marks=pytest.mark.slow), pytest.param((1, 1, 1), 4, marks=pytest.mark.slow)],
)  # fmt: skip
def test_every_mesh_and_any_parts_give_the_same(mesh, accumulate):
    with on_mesh(*mesh):
        got, _ = looked(rows(), accumulate=accumulate)
    assert got == pytest.approx(expected(), rel=1e-5, abs=1e-6)


def test_a_kind_that_is_not_there_has_no_value_and_spoils_no_other(one_device):
    got, others = looked(rows(without="understanding"))
    assert {name.split("/")[1] for name in got} == {"norm_text", "norm_generation"}
    want = {name: expected()[name] for name in got}
    for name in ("probes/norm_text", "probes/norm_generation"):
        assert got[name] > 0.01 and got[name] != want[name], "other rows, other gradients"
    assert "understanding_loss" not in others and np.isfinite([*others.values()]).all()


def test_training_goes_on_bit_for_bit_and_only_some_steps_are_looked_at(one_device):
    plain, state = tiny.make_state(tiny.TX), tiny.make_state(tiny.TX)
    seen = []
    for i in range(4):
        batch = tiny.put(rows(seed=i))
        plain, want = tiny.make_step(tiny.TX)(plain, batch)
        state, got = step()(state, batch)
        assert all(float(got[name]) == float(x) for name, x in want.items())
        seen.append(any(name.startswith("probes/") for name in numbers(got)))
    assert seen == [False, True, False, True]
    tiny.same_bits(state, plain)
