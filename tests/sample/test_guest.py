"""The library as a guest: JAX is the caller's before, while and after we are called."""

import logging
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.sampling import PROMPTS, draw, picture, said

import janus_jax
from janus_jax.model.guest import own_jax
from janus_jax.sample.cache import put
from janus_jax.sample.programs import pick, row_keys, write

ASKED = said("what is it?", picture(1))


def both(model) -> tuple:
    """What a model draws and answers, by every way of sampling."""
    numbers = dict(max_new_tokens=6, temperature=1.0, top_p=0.9, seed=3)
    answer = janus_jax.understand(model, tiny.processor(), ASKED, **numbers)
    return draw(model, PROMPTS[:1], seed=7).tolist(), answer


@pytest.fixture(scope="module")
def want(weights):
    return both(weights)


def of_the_caller(mesh) -> list:
    """A notebook's own cells: another mesh, pmap, and keys of another kind."""
    rows = jax.device_put(np.arange(8.0), jax.NamedSharding(mesh, jax.P("x")))
    doubled = jax.pmap(lambda x: 2 * x)(jnp.arange(8.0))
    keys = jax.random.split(jax.random.key(5, impl="rbg"), 2)
    drawn = jax.random.normal(jax.random.key(0), (4,)) + jax.random.normal(keys[1], (4,))
    return [np.asarray(x).tolist() for x in (rows + 1, doubled, drawn)]


def test_a_notebook_computes_after_our_calls_what_it_computed_before(folder):
    mesh = jax.make_mesh((8,), ("x",))
    root = list(logging.getLogger().handlers), logging.getLogger().level
    settings = dict(jax.config.values), list(warnings.filters)
    before = of_the_caller(mesh)
    model, processor = janus_jax.load(folder)
    assert of_the_caller(mesh) == before and jax.sharding.get_mesh().empty
    janus_jax.generate(model, processor, "a cat")
    janus_jax.understand(model, processor, ASKED, max_new_tokens=2)
    assert of_the_caller(mesh) == before and jax.sharding.get_mesh().empty
    assert (dict(jax.config.values), list(warnings.filters)) == settings
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == root


@pytest.mark.parametrize(
    "name, value",
    [
        ("jax_default_prng_impl", "rbg"),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_enable_x64", True),
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_debug_nans", True),
        ("jax_threefry_partitionable", False),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_transfer_guard", "disallow"),
        ("jax_disable_jit", True),
    ],
)
def test_what_the_caller_has_set_changes_no_id_and_compiles_nothing(weights, want, name, value):
    compiled = write._cache_size()
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        assert both(weights) == want and getattr(jax.config, name) == value
    finally:
        jax.config.update(name, before)
    assert write._cache_size() == compiled


def test_a_draw_is_the_same_where_the_caller_asks_for_finer_gumbel_noise():
    def drawn() -> list[int]:
        with own_jax():
            flat = np.zeros((64, 99), np.float32)
            seeds = np.arange(64, dtype=np.uint32), np.zeros(64, np.int32)
            draw = jax.jit(lambda seeds, x: pick(row_keys(*seeds), x, np.float32(1)))
            return draw([*map(put, seeds)], put(flat)).tolist()

    want = drawn()
    jax.config.update("jax_high_dynamic_range_gumbel", True)
    try:
        assert drawn() == want
    finally:
        jax.config.update("jax_high_dynamic_range_gumbel", False)


def test_another_mesh_of_the_caller_is_set_again_also_in_callbacks(weights, want):
    mesh = jax.make_mesh((8,), ("x",))
    seen = []
    look = lambda *_: seen.append(jax.sharding.get_mesh() == mesh)
    with jax.set_mesh(mesh):
        assert both(weights) == want
        janus_jax.understand(weights, tiny.processor(), ASKED, max_new_tokens=2, stream=look)
        draw(weights, PROMPTS[:1], progress=look)
        look()
    assert len(seen) > 2 and all(seen)


def test_a_model_on_a_mesh_without_our_axes_or_in_numpy_is_named_with_the_way_out(weights):
    graph, state = nnx.split(weights)
    foreign = jax.NamedSharding(jax.make_mesh((8,), ("x",)), jax.P())
    for place, where in (
        (lambda x: jax.device_put(np.asarray(x), foreign), r"on a mesh with the axes \('x',\)"),
        (np.asarray, "in numpy arrays"),
    ):
        with pytest.raises(ValueError, match=f"the model lies {where}: take it as janus_jax.load"):
            draw(nnx.merge(graph, jax.tree.map(place, state)), PROMPTS[:1])


def test_threads_answer_what_one_does(weights, want):
    found = []
    threads = [threading.Thread(target=lambda: found.append(both(weights))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [want] * 3
