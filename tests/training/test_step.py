"""The step: the same numbers on every mesh, the flames and no others."""

import functools

import jax
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.paths import CONFIGS
from support.tiny import specs, with_ids

from janus_jax.config import read, schema
from janus_jax.model import batch as bt
from janus_jax.training import optim


@functools.cache
def stepped(mesh: tuple, steps: int = 1):
    """What `steps` steps leave on a mesh: losses, weights after the first (numpy), shardings before
    and after, and how many programs there were after each step."""
    with on_mesh(*mesh):
        tx = tiny.TX
        state, step, batch = tiny.make_state(tx), tiny.make_step(tx), with_ids(tiny.rows())
        before, seen, programs, weights = specs(state), [], [], {}
        for _ in range(steps):
            state, metrics = step(state, tiny.put(batch))
            seen.append({name: float(x) for name, x in metrics.items()})
            programs.append(step._cache_size())
            weights = weights or tiny.numbers(state.trainable)
        assert int(state.step) == steps
        return seen, weights, before, specs(state), programs


@pytest.mark.parametrize(
    "mesh",
    [*(pytest.param(m, marks=pytest.mark.slow) for m in [(1, 8, 1), (1, 1, 8)]), (2, 2, 2)],
    ids=lambda m: "x".join(map(str, m)),
)
def test_every_mesh_takes_the_same_step(mesh):
    (metrics, *_), weights, *_ = stepped(mesh, 3 if mesh == (2, 2, 2) else 1)
    (want, *_), expected, *_ = stepped((1, 1, 1))
    for name in ("loss", "grad_norm", "generation_loss", "text_loss", "understanding_loss"):
        assert metrics[name] == pytest.approx(want[name], rel=1e-5), name
    for name, x in expected.items():
        np.testing.assert_allclose(weights[name], x, atol=1e-5, rtol=0, err_msg=name)


def test_the_step_compiles_once_and_keeps_every_sharding():
    losses, _, before, after, programs = stepped((2, 2, 2), 3)
    assert len(programs) == 3 and len(set(programs)) == 1
    assert before == after
    assert losses[2]["loss"] < losses[0]["loss"]
    split = {axis for spec in after.values() for part in spec for axis in ([part] if part else [])}
    assert {"fsdp", "tensor"} <= split, "nothing was split: the test shows nothing"


def flames_of(name: str) -> tuple:
    (stage,) = read.read(CONFIGS / f"{name}.py")[0].stages.values()
    return stage.trainable


@pytest.mark.parametrize("name", ["stage1", "stage2", "stage3"])
def test_only_the_flames_of_a_stage_change(name, one_device):
    flames = flames_of(name)
    tx = tiny.TX
    state, batch = tiny.make_state(tx, flames), with_ids(tiny.rows(2))
    before = tiny.numbers(state.trainable), tiny.numbers(state.frozen)
    state, _ = tiny.make_step(tx)(state, tiny.put(batch))
    after = tiny.numbers(state.trainable), tiny.numbers(state.frozen)
    assert {key.split(".")[0] for key in after[0]} == set(flames)
    assert "generation_encoder" in state.frozen
    assert [key for key in after[1] if before[1][key].tobytes() != after[1][key].tobytes()] == []
    # In stage 1 the adaptors' gradients have come through the frozen transformer. Norms and biases
    # do not decay, so that what moved them is a gradient.
    moved = {key for key in after[0] if np.abs(before[0][key] - after[0][key]).max() > 1e-4}
    undecayed = {key for key in moved if not key.endswith(("kernel", "table"))}
    assert {key.split(".")[0] for key in moved} == set(flames)
    tables = {"text_embedding", "generation_embedding", "text_head"}
    assert {key.split(".")[0] for key in undecayed} == set(flames) - tables


def test_pictures_that_do_not_exist_cost_nothing_and_change_nothing():
    """Empty slots hold noise: what is read of them would show. Rows differ in how many pictures
    they have, and the adaptors learn alone: the gradients come to them through all the rest."""
    flames = ("understanding_adaptor", "generation_adaptor", "image_head")
    examples = [
        ["understanding", "text", "generation"],
        ["text"],
        ["understanding"] * 2,
        ["generation"] * 2,
    ]
    batch = tiny.stacked(
        [tiny.row([tiny.example(t, i) for t in e]) for i, e in enumerate(examples)]
    )
    noise = (
        np.random.default_rng(0)
        .integers(0, 255, batch["understanding_images"].shape)
        .astype(np.uint8)
    )
    noisy = dict(batch)
    for name, slots, n in (
        ("understanding_images", "understanding_slots", 16),
        ("generation_images", "generation_slots", 16),
    ):
        empty = np.arange(2) >= -(-batch[slots].max(1, keepdims=True) // n)
        assert empty.sum() > 3
        noisy[name] = np.where(empty[..., None, None, None], noise, batch[name])
    seen = []
    for mesh, all_rows in (((1, 1, 1), (batch, noisy)), ((2, 2, 2), (noisy,))):
        with on_mesh(*mesh):
            step = tiny.make_step(tiny.TX)
            for rows in all_rows:
                metrics = step(tiny.make_state(tiny.TX, flames), tiny.put(rows))[1]
                seen.append({name: float(x) for name, x in metrics.items()})
    assert seen[0] == seen[1]
    assert seen[2] == pytest.approx(seen[0], rel=1e-5)


def test_a_step_in_parts_is_the_step():
    """The rows differ in supervised tokens, so a mean of the parts' means would be another loss."""
    rows = [
        tiny.row([tiny.example("text", i)] if i % 2 else [tiny.example("generation", i)])
        for i in range(8)
    ]
    batch, tx = with_ids(tiny.stacked(rows)), tiny.TX
    with on_mesh(2, 2, 2):
        whole, want = tiny.make_step(tx)(tiny.make_state(tx), tiny.put(batch))
        parts, got = tiny.make_step(tx, accumulate=2)(tiny.make_state(tx), tiny.put(batch))
        assert want.keys() == got.keys()
        for name in want:
            assert float(got[name]) == pytest.approx(float(want[name]), rel=1e-5, abs=1e-7), name
        whole, parts = tiny.numbers(whole.trainable), tiny.numbers(parts.trainable)
    for name, x in whole.items():
        np.testing.assert_allclose(parts[name], x, atol=1e-5, rtol=0, err_msg=name)


def test_four_examples_are_learned_by_heart(one_device):
    tx = optim.make(schema.Optim(learning_rate=1e-2, warmup_steps=10), 60)
    state, step = tiny.make_state(tx), tiny.make_step(tx)
    examples = [[tiny.example("understanding", 1), tiny.example("text", 1)]]
    examples += [[tiny.example("generation", i) for i in (1, 2)]]
    batch = tiny.put(with_ids(tiny.stacked([tiny.row(e) for e in examples])))
    seen = []
    for _ in range(40):
        state, metrics = step(state, batch)
        seen.append(metrics["loss"])
    assert float(seen[0]) > 4
    assert float(seen[-1]) < 0.1
    assert all(float(metrics[f"{task}_loss"]) < 0.2 for task in bt.TASKS)


def test_bfloat16_keeps_float32_weights_and_nearly_the_loss(one_device):
    tx, flames = tiny.TX, flames_of("stage3")  # whose step is compiled already
    full = tiny.make_step(tx)(tiny.make_state(tx, flames), tiny.put(with_ids(tiny.rows(2))))[1]
    state, batch = tiny.make_state(tx, config=tiny.small(dtype="bfloat16")), with_ids(tiny.rows(2))
    state, metrics = tiny.make_step(tx)(state, tiny.put(batch))
    assert float(metrics["loss"]) == pytest.approx(float(full["loss"]), rel=2e-2)
    assert float(metrics["loss"]) != float(full["loss"]), "computed in float32 after all"
    dtypes = {x.dtype for x in jax.tree.leaves((state.params, state.opt_state)) if x.ndim}
    assert dtypes == {np.dtype("float32")}
