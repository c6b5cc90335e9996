"""Table 1's optimiser: schedules, decay, moments, clipping."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny
from support.mesh import on_mesh
from support.tiny import STEPS, is_adam, specs

from janus_jax.config import schema
from janus_jax.config.lengths import in_steps
from janus_jax.config.optim import MU_DTYPES, optim_problems
from janus_jax.model import sharding as sh
from janus_jax.training import ema, optim


@pytest.mark.parametrize(
    "kind, middle, late, end",
    [
        ("constant", 2.0, 2.0, 2.0),
        ("cosine", 1.1, 0.2 + 0.9 * (1 + math.cos(0.9 * math.pi)), 0.2),
        ("linear", 1.1, 0.2 + 1.8 * 0.1, 0.2),
        ("wsd", 2.0, 1.1, 0.2),
    ],
)
def test_schedules_at_their_corners(kind, middle, late, end):
    """Of 110 steps the first 10 are the warm-up, of wsd the last 20 the decay; either is given in
    steps or as a share."""
    column = schema.Optim(learning_rate=2.0, schedule=kind, warmup_steps=10, end_factor=0.1)
    last = 20 if kind == "wsd" else 0
    for warmup, decay in ((10, last), (10 / 110, last / 110)):
        column = dataclasses.replace(column, warmup_steps=warmup, decay_steps=decay)
        rate = optim.schedules(column, 110)["default"]
        got = [float(rate(step)) for step in (0, 5, 10, 60, 100, 110)]
        assert got == pytest.approx([0.0, 1.0, 2.0, middle, late, end], abs=1e-6)
    at_once = optim.schedules(dataclasses.replace(column, warmup_steps=0), 100)["default"]
    assert float(at_once(0)) == 2.0


def test_a_constant_or_wsd_schedule_does_not_depend_on_where_a_stage_ends_before_its_decay():
    for kind, decay in (("constant", 0), ("wsd", 20)):
        column = schema.Optim(2.0, kind, warmup_steps=10, decay_steps=decay)
        short, long = (optim.schedules(column, steps)["default"] for steps in (100, 300))
        assert [float(short(n)) for n in range(80)] == [float(long(n)) for n in range(80)]


def test_a_linear_schedule_may_hold_before_it_falls():
    column = schema.Optim(2.0, "linear", decay_steps=0.25)
    rate = optim.schedules(column, 100)["default"]
    assert [float(rate(n)) for n in (0, 75, 80, 100)] == pytest.approx([2.0, 2.0, 1.6, 0.0])


def test_shares_that_fill_a_stage_fill_it_whatever_its_length():
    """Of 35 steps a tenth and nine tenths are 4 and 32, rounded."""
    for steps in (2, 7, 15, 35, 45, 100):
        column = schema.Optim(2.0, "linear", warmup_steps=0.1, decay_steps=0.9)
        stage = types.SimpleNamespace(optim=column, steps=steps)
        assert optim_problems("one", stage) == []
        rate = optim.schedules(column, steps)["default"]
        assert float(rate(in_steps(0.1, steps))) == 2.0 and float(rate(steps)) == 0.0
    longer = types.SimpleNamespace(optim=dataclasses.replace(column, decay_steps=0.95), steps=100)
    assert "95 steps after the 10 of warmup_steps" in optim_problems("one", longer)[0]


def test_a_share_of_few_steps_is_at_least_one():
    assert [in_steps(x, 10) for x in (0, 0.01, 0.25, 0.3, 1, 7.0)] == [0, 1, 2, 3, 1, 7]


def test_moments_serve_another_rate_and_schedule():
    """A run goes on with them under a changed config: the state has one structure, and half the
    rate makes half the step."""
    column = schema.Optim(learning_rate=0.1, weight_decay=0.5)
    params = {"one": {"kernel": jnp.arange(4.0)}}
    grads = {"one": {"kernel": jnp.asarray([1.0, -2.0, 3.0, 0.5])}}
    before = optim.make(column, 100)
    state = before.init(params)
    for _ in range(3):
        _, state = before.update(grads, state, params)
    others = [{"learning_rate": 0.05}, {"clip_norm": 9.0}, {"weight_decay": 0.0}, {"b1": 0.5}]
    others += [{"schedule": kind, "decay_steps": 5} for kind in ("cosine", "linear", "wsd")]
    for other in others:
        after = optim.make(dataclasses.replace(column, **other), 200)
        assert jax.tree.structure(after.init(params)) == jax.tree.structure(state), other
    halved = optim.make(dataclasses.replace(column, learning_rate=0.05), 200)
    whole, half = (tx.update(grads, state, params)[0]["one"]["kernel"] for tx in (before, halved))
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)
    assert np.abs(whole).min() > 0.01


def test_decay_reaches_both_matrices_of_a_low_rank_pair():
    pair = {"a": 1, "b": 1}
    assert optim.decays({"lora": {"transformer": {"q": pair}}, "contrast": {"b": 1}}) == {
        "lora": {"transformer": {"q": {"a": True, "b": True}}}, "contrast": {"b": False}
    }  # fmt: skip


def test_decay_shrinks_kernels_and_tables_only(one_device):
    tx = optim.make(schema.Optim(learning_rate=0.1, weight_decay=0.5, eps=1.0), STEPS)
    params = tiny.make_state(tx).trainable
    params = jax.tree.map(
        lambda x: x + 1.0, params
    )  # biases begin at 0, where nothing could shrink
    grads = jax.tree.map(lambda x: jnp.full_like(x, 1e-9), params)  # next to nothing
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    params, updates = tiny.numbers(params), tiny.numbers(updates)
    kernels = {
        name for name in params if name.split(".")[-1] in ("kernel", "table", "patch_kernel")
    }
    for name, update in updates.items():
        want = -0.05 * params[name] if name in kernels else np.zeros_like(update)
        np.testing.assert_allclose(update, want, rtol=1e-6, atol=1e-8, err_msg=name)
    assert {name.split(".")[-1] for name in params.keys() - kernels} == {
        "scale", "bias", "patch_bias", "positions",
    }  # fmt: skip


def test_the_first_moment_may_be_bfloat16():
    """Kept in half the bytes, split as its weight is; the update is nearly the same. An average of
    the weights stays float32, and is split as they are."""
    rng, updates = np.random.default_rng(0), {}
    with on_mesh(2, 2, 2):
        put = lambda x, spec: jax.device_put(x.astype(np.float32), spec)
        params = {
            "kernel": put(rng.normal(size=(8, 16)), sh.W_DF),
            "table": put(rng.normal(size=(6, 8)), sh.W_VD),
        }
        grads = jax.tree.map(lambda x: x * 0.3, params)
        for dtype in MU_DTYPES:
            column = schema.Optim(learning_rate=0.1, eps=1e-3, mu_dtype=dtype, ema=0.9)
            tx = optim.make(column, STEPS)
            _, state = jax.jit(tx.update)(grads, jax.jit(tx.init)(params), params)
            updates[dtype], state = jax.jit(tx.update)(
                grads, state, params
            )  # reads the kept moments
            (adam,) = (x for x in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(x))
            assert {name: x.dtype for name, x in adam.mu.items()} == dict.fromkeys(params, dtype)
            assert {name: x.dtype for name, x in adam.nu.items()} == dict.fromkeys(
                params, "float32"
            )
            average = ema.averaged(state)
            assert specs(adam.mu) == specs(adam.nu) == specs(average) == specs(params)
            assert {x.dtype for x in average.values()} == {jnp.dtype("float32")}
    exact, rounded = (tiny.numbers(updates[dtype]) for dtype in MU_DTYPES)
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


# By part


def _params() -> dict:
    of = lambda seed: {
        name: jax.random.normal(jax.random.key(seed + i), (4, 3))
        for i, name in enumerate(("kernel", "bias"))
    }
    return {"tower": of(0), "head": of(2), "lora": {"a": of(4)["kernel"], "b": of(6)["kernel"]}}


def _trained(tx, steps: int = 4):
    """(weights, state) after some steps on gradients of made-up size."""
    params = _params()
    state = tx.init(params)
    for n in range(steps):
        grads = jax.tree.map(lambda x: 0.1 * jnp.sin(7 * x + n), params)  # noqa: B023
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_one_rate_for_all_is_optax_adamw_bit_for_bit():
    column = schema.Optim(0.02, "cosine", warmup_steps=2, weight_decay=0.3)
    rate = optim.schedules(column, STEPS)["default"]
    adamw = optax.adamw(rate, 0.9, 0.95, 1e-8, weight_decay=0.3, mask=optim.decays)
    theirs, want = _trained(optax.chain(optax.clip_by_global_norm(1.0), adamw))
    ours, state = _trained(optim.make(column, STEPS))
    tiny.same_bits(ours, theirs)
    tiny.same_bits(jax.tree.leaves(state), jax.tree.leaves(want))
    named = lambda state: [str(path) for path, _ in jax.tree.leaves_with_path(state)]
    assert named(state) == named(want)  # checkpoints of either are read


def test_rates_and_decay_by_part_are_those_of_an_adamw_for_each_part():
    """The gradients are clipped together before."""
    rates = {"default": 0.02, "tower": 0.002, "lora": 0.1}
    decay = {"default": 0.0, "lora": 0.5, "tower": 0.2}
    column = schema.Optim(rates, "linear", warmup_steps=2, weight_decay=decay)
    own = {}
    for part in ("default", "tower", "lora"):
        alone = dataclasses.replace(column, learning_rate=rates[part])
        rate = optim.schedules(alone, STEPS)["default"]
        how = dict(weight_decay=decay[part], mask=optim.decays)
        own[part] = optax.adamw(rate, 0.9, 0.95, 1e-8, **how)
    labels = lambda params: {part: part if part in own else "default" for part in params}
    clip = optax.clip_by_global_norm(1.0)
    want, _ = _trained(optax.chain(clip, optax.partition(own, labels)))
    got, _ = _trained(optim.make(column, STEPS))
    tiny.same_bits(got, want)
    plain, _ = _trained(optim.make(dataclasses.replace(column, weight_decay=0.0), STEPS))
    moved = lambda part, name: bool((got[part][name] != plain[part][name]).any())
    assert moved("tower", "kernel") and moved("lora", "a") and moved("lora", "b")
    assert not (moved("tower", "bias") or moved("head", "kernel"))


def test_rates_by_part_are_logged_by_their_names():
    column = schema.Optim({"default": 2.0, "tower": 0.5}, warmup_steps=4)
    assert optim.logged(optim.schedules(column, STEPS), 2) == {
        "learning_rate": 1.0,
        "learning_rate/tower": 0.25,
    }
