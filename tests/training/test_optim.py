"""Table 1's optimiser: schedules, decay, moments, clipping."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.tiny import STEPS, is_adam, specs

from janus_jax.config import schema
from janus_jax.model import sharding as sh
from janus_jax.training import optim


@pytest.mark.parametrize("kind, end", [("constant", 2.0), ("cosine", 0.2)])
def test_schedules_at_their_corners(kind, end):
    column = schema.Optim(learning_rate=2.0, schedule=kind, warmup_steps=10, end_factor=0.1)
    rate = optim.schedule(column, 110)
    got = [float(rate(step)) for step in (0, 5, 10, 110)]
    assert got == pytest.approx([0.0, 1.0, 2.0, end], abs=1e-6)
    assert float(rate(60)) == pytest.approx(2.0 if kind == "constant" else 1.1)
    at_once = optim.schedule(schema.Optim(learning_rate=2.0, schedule=kind), 100)
    assert float(at_once(0)) == 2.0


def test_decay_reaches_both_matrices_of_a_low_rank_pair():
    pair = {"a": 1, "b": 1}
    assert optim.decays({"lora": {"transformer": {"q": pair}}, "contrast": {"b": 1}}) == {
        "lora": {"transformer": {"q": {"a": True, "b": True}}}, "contrast": {"b": False}
    }  # fmt: skip


def test_decay_shrinks_kernels_and_tables_only(one_device):
    tx = optim.make(schema.Optim(learning_rate=0.1, weight_decay=0.5), STEPS)
    params = tiny.make_state(tx).trainable
    params = jax.tree.map(
        lambda x: x + 1.0, params
    )  # biases begin at 0, where nothing could shrink
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    params, updates = tiny.numbers(params), tiny.numbers(updates)
    kernels = {
        name for name in params if name.split(".")[-1] in ("kernel", "table", "patch_kernel")
    }
    for name, update in updates.items():
        want = -0.05 * params[name] if name in kernels else np.zeros_like(update)
        np.testing.assert_allclose(update, want, rtol=1e-6, err_msg=name)
    assert {name.split(".")[-1] for name in params.keys() - kernels} == {
        "scale", "bias", "patch_bias", "positions",
    }  # fmt: skip


def test_the_first_moment_may_be_bfloat16():
    """Kept in half the bytes, split as its weight is; the update is nearly the same."""
    rng, updates = np.random.default_rng(0), {}
    with on_mesh(2, 2, 2):
        put = lambda x, spec: jax.device_put(x.astype(np.float32), spec)
        params = {
            "kernel": put(rng.normal(size=(8, 16)), sh.W_DF),
            "table": put(rng.normal(size=(6, 8)), sh.W_VD),
        }
        grads = jax.tree.map(lambda x: x * 0.3, params)
        for dtype in schema.MU_DTYPES:
            tx = optim.make(schema.Optim(learning_rate=0.1, eps=1e-3, mu_dtype=dtype), STEPS)
            _, state = jax.jit(tx.update)(grads, jax.jit(tx.init)(params), params)
            updates[dtype], state = jax.jit(tx.update)(
                grads, state, params
            )  # reads the kept moments
            (adam,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
            assert {name: x.dtype for name, x in adam.mu.items()} == dict.fromkeys(params, dtype)
            assert {name: x.dtype for name, x in adam.nu.items()} == dict.fromkeys(
                params, "float32"
            )
            assert specs(adam.mu) == specs(adam.nu) == specs(params)
    exact, rounded = (tiny.numbers(updates[dtype]) for dtype in schema.MU_DTYPES)
    for name in exact:
        assert np.abs(rounded[name] - exact[name]).max() > 0
        np.testing.assert_allclose(rounded[name], exact[name], rtol=1e-2, err_msg=name)


def test_a_huge_gradient_is_clipped_to_the_norm():
    tx = optim.make(
        schema.Optim(learning_rate=0.1, clip_norm=1.0, eps=1.0), STEPS
    )  # eps shows the size
    params = {"a": {"kernel": jnp.ones(3)}, "b": {"bias": jnp.ones(2)}}
    huge = {"a": {"kernel": jnp.array([3e6, 0.0, 4e6])}, "b": {"bias": jnp.array([12e6, 0.0])}}
    clipped = jax.tree.map(lambda x: x / 13e6, huge)
    first, _ = tx.update(huge, tx.init(params), params)
    second, _ = tx.update(clipped, tx.init(params), params)
    small, _ = tx.update(jax.tree.map(lambda x: x / 2, clipped), tx.init(params), params)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), first, second)
    assert float(small["b"]["bias"][0]) != pytest.approx(float(second["b"]["bias"][0]), rel=1e-2)
