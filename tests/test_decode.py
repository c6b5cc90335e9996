"""The form that decodes: equal to the form that trains, int8 close to it, and no work or memory wasted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_mesh
from flax import nnx

from janus_jax import sharding as sh
from janus_jax.model.janus import serving
from janus_jax.model.layers import Int8Linear, int8
from janus_jax.sample import decode
from janus_jax.sample.generate import generate_ids
from janus_jax.sample.understand import understand

MESHES = [(1, 1, 1), (1, 4, 2), (2, 1, 4)]


@pytest.fixture
def model(one_device):
    return tiny.make_model()


def hidden(model, dtype="float32"):
    """Hidden states of eight fixed rows, through the whole transformer."""
    x = np.random.default_rng(0).normal(size=(8, 12, 32)).astype(dtype)
    positions = np.broadcast_to(np.arange(12), (8, 12))
    one = jnp.ones((8, 12), jnp.int32, out_sharding=sh.BATCH)
    run = jax.jit(lambda m, x, p, ids: m.transformer(x, p, ids))
    return np.asarray(run(model, decode.put(x), decode.put(positions), one), np.float32)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_both_forms_compute_the_same_on_every_mesh(mesh):
    with on_mesh():
        want = hidden(tiny.make_model())
    with on_mesh(*mesh):
        stacked = tiny.make_model()
        np.testing.assert_allclose(hidden(stacked), want, atol=2e-5)
        np.testing.assert_allclose(hidden(serving(stacked)), want, atol=2e-5)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_int8_is_near_and_the_same_on_every_mesh(mesh):
    with on_mesh():
        want, near = hidden(tiny.make_model()), hidden(serving(tiny.make_model(), int8=True))
    error = np.linalg.norm(near - want) / np.linalg.norm(want)
    assert 1e-4 < error < 0.03
    with on_mesh(*mesh):
        np.testing.assert_allclose(hidden(serving(tiny.make_model(), int8=True)), near, atol=0.05)


def test_int8_products_are_exact_in_what_was_rounded(model):
    """Against the same in numpy, in integers; one row, which goes another way, gives what it gives in two."""
    linear = model.image_head.fc2
    quantised, x = Int8Linear(linear), np.random.default_rng(1).normal(size=(2, 3, 32)).astype(np.float32)
    kernel, scale = (np.asarray(v) for v in int8(linear.kernel[...].T))
    assert kernel.dtype == np.int8 and kernel.min() == -127 == -kernel.max()
    np.testing.assert_allclose(kernel * scale[:, None], linear.kernel[...].T, atol=scale.max() / 2 * 1.001)
    rows, row_scale = (np.asarray(v) for v in int8(jnp.asarray(x.reshape(6, 32))))
    want = (rows.astype(int) @ kernel.T.astype(int)) * row_scale[:, None] * scale + np.asarray(
        linear.bias[...]
    )
    got = np.asarray(quantised(decode.put(x)))
    np.testing.assert_allclose(got.reshape(6, -1), want, rtol=1e-5, atol=1e-6)
    one = np.asarray(quantised(decode.put(x[:1, :1])))
    np.testing.assert_allclose(one, got[:1, :1], rtol=1e-6, atol=1e-7)


def test_a_row_of_zeros_stays_zero():
    values, scale = int8(jnp.zeros((1, 8)))
    assert not np.asarray(values).any() and np.isfinite(np.asarray(scale)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_weights_draw_and_answer(one_device, dtype):
    narrow = tiny.make_model(tiny.small(dtype="float32" if dtype == "int8" else dtype))
    model = serving(narrow, int8=dtype == "int8")
    ids = generate_ids(model, tiny.processor(), "a red circle", cfg_scale=5.0, temperature=1.0, seed=1)
    assert ids.shape == (1, 16) and ids.min() >= 0 and ids.max() < 64 and len(set(ids[0].tolist())) > 2
    asked = [{"role": "user", "content": "what is it?"}]
    assert isinstance(understand(model, tiny.processor(), asked, max_new_tokens=8), str)


def draw(model, prompts, **options):
    return generate_ids(model, tiny.processor(), prompts, temperature=1.0, **({"cfg_scale": 5.0} | options))


def test_rows_that_are_equal_are_prefilled_once(model, monkeypatch):
    rows, prefill = [], decode.prefill
    monkeypatch.setattr(decode, "prefill", lambda m, x, s: (rows.append(len(x)), prefill(m, x, s))[1])
    draw(model, "a red circle", images_per_prompt=4)
    assert rows == [2], "the prompt and its unconditional twin"
    prompts = ["a red circle", "a red square", "a blue circle of many words"]
    lengths = {len(tiny.processor().request(prompt)) for prompt in prompts}
    draw(model, prompts)
    assert rows[1] == 1 << (3 + len(lengths) - 1).bit_length(), "unconditional rows of equal length are one"


@pytest.mark.parametrize("scale, rows", [(0.0, 4), (1.0, 4), (2.0, 8)])
def test_a_branch_that_does_not_count_is_not_run(model, monkeypatch, scale, rows):
    seen, chunk = [], decode.image_chunk
    monkeypatch.setattr(
        decode, "image_chunk", lambda m, h, *a, **k: (seen.append(len(h)), chunk(m, h, *a, **k))[1]
    )
    draw(model, "a red circle", images_per_prompt=4, cfg_scale=scale)
    assert seen == [rows]


def test_a_prompt_of_another_length_compiles_a_prefill_only(model):
    served = serving(model)
    draw(served, "a red circle")
    chunks, prefills = decode.image_chunk._cache_size(), decode.prefill._cache_size()
    draw(served, "a yellow triangle to the left of a green circle and a blue cross below both")
    assert decode.image_chunk._cache_size() == chunks
    assert decode.prefill._cache_size() == prefills + 1


def test_the_cache_grows_as_it_fills(model, monkeypatch):
    lengths, grow = [], decode.grow
    monkeypatch.setattr(decode, "grow", lambda cache, n: (lengths.append(n), grow(cache, n))[1])
    monkeypatch.setattr(decode, "GROWTH", 8)
    monkeypatch.setattr(decode, "CHUNK", 4)
    short = draw(model, "a red circle", seed=3).tolist()
    assert lengths == [lengths[0], lengths[0], lengths[0] + 8, lengths[0] + 8]
    monkeypatch.undo()
    assert draw(model, "a red circle", seed=3).tolist() == short


def test_progress_and_stream_tell_of_everything_once(model, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 4)
    told = []
    draw(model, ["a red circle", "a cross"], progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 16), (8, 16), (12, 16), (16, 16)]
    ids, pictures = np.ones((1, 32), np.int32), np.zeros((1, 0, 16, 16, 3), np.float32)
    run = functools.partial(
        decode.text_ids, model, ids, pictures, np.zeros_like(ids), np.zeros(1, np.int32),
        jax.random.split(jax.random.key(0), 1), -1, 0.0, None, 10,
    )  # fmt: skip
    whole, parts = run(), []
    run(stream=parts.append)
    assert np.concatenate(parts, 1).tolist() == whole.tolist() and len(parts) == 10
    stopped = run(stream=lambda ids: (parts.append(ids), len(parts) == 13)[1])
    assert len(parts) == 13 and stopped[:, :3].tolist() == whole[:, :3].tolist()


def test_a_table_in_bfloat16_is_not_widened_to_read_a_row(one_device):
    llm = dataclasses.replace(tiny.CONFIG.transformer, vocabulary=1 << 16)
    model = tiny.make_model(tiny.small(transformer=llm, dtype="bfloat16"))
    table = model.text_embedding.table[...]
    model.text_embedding.table = nnx.Param(table.astype(jnp.bfloat16))
    served, zero = serving(model), jnp.int32(0)
    starts = decode.put(np.zeros(2, np.int32))
    last, cache = decode.prefill(served, decode.put(np.zeros((2, 8, 32), jnp.bfloat16)), starts)
    compiled = decode.text_chunk.lower(
        served, last, decode.grow(cache, 16), starts, decode.put(jax.random.split(jax.random.key(0), 2)),
        decode.put(np.zeros(2, bool)), zero, zero, zero, jnp.float32(0), None, steps=4,
    ).compile()  # fmt: skip
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * table.size
