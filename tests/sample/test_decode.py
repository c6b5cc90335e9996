"""The form that decodes: equal to the form that trains, int8 close to it, and no work or memory
wasted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh

from janus_jax.model import sharding as sh
from janus_jax.model.layers import Linear
from janus_jax.model.serving import Int8Linear, TurnedLinear, int8, serving
from janus_jax.sample import cache, decode, engine, programs, reading
from janus_jax.sample.decode import text_ids
from janus_jax.sample.generate import generate_ids
from janus_jax.sample.understand import understand, understand_batch
from janus_jax.weights.load import compute_type


@pytest.fixture
def model(one_device):
    return tiny.make_model()


def hidden(model, dtype="float32"):
    """Hidden states of eight fixed rows, through the whole transformer."""
    x = np.random.default_rng(0).normal(size=(8, 12, 32)).astype(dtype)
    positions = np.broadcast_to(np.arange(12), (8, 12))
    one = jnp.ones((8, 12), jnp.int32, out_sharding=sh.BATCH)
    run = jax.jit(lambda m, x, p, ids: m.transformer(x, p, ids))
    return np.asarray(run(model, cache.put(x), cache.put(positions), one), np.float32)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_both_forms_compute_the_same_on_every_mesh(mesh):
    with on_mesh():
        want = hidden(tiny.make_model())
    with on_mesh(*mesh):
        stacked = tiny.make_model()
        np.testing.assert_allclose(hidden(stacked), want, atol=2e-5)
        np.testing.assert_allclose(hidden(serving(stacked)), want, atol=2e-5)


def test_int8_is_near_and_the_same_on_a_mesh():
    with on_mesh():
        want, near = hidden(tiny.make_model()), hidden(serving(tiny.make_model(), int8=True))
    error = np.linalg.norm(near - want) / np.linalg.norm(want)
    assert 1e-4 < error < 0.03
    with on_mesh(2, 2, 2):
        np.testing.assert_allclose(hidden(serving(tiny.make_model(), int8=True)), near, atol=0.05)


def test_int8_products_are_exact_in_what_was_rounded(model):
    """Against the same in numpy, in integers; one row, which goes another way, gives what it gives
    in two."""
    linear = model.image_head.fc2
    quantised, x = (
        Int8Linear(linear),
        np.random.default_rng(1).normal(size=(2, 3, 32)).astype(np.float32),
    )
    kernel, scale = (np.asarray(v) for v in int8(linear.kernel[...].T))
    assert kernel.dtype == np.int8 and kernel.min() == -127 == -kernel.max()
    np.testing.assert_allclose(
        kernel * scale[:, None], linear.kernel[...].T, atol=scale.max() / 2 * 1.001
    )
    rows, row_scale = (np.asarray(v) for v in int8(jnp.asarray(x.reshape(6, 32))))
    want = (rows.astype(int) @ kernel.T.astype(int)) * row_scale[:, None] * scale + np.asarray(
        linear.bias[...]
    )
    got = np.asarray(quantised(cache.put(x)))
    np.testing.assert_allclose(got.reshape(6, -1), want, rtol=1e-5, atol=1e-6)
    one = np.asarray(quantised(cache.put(x[:1, :1])))
    np.testing.assert_allclose(one, got[:1, :1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rows", [1, 6, 16, 33])
@pytest.mark.parametrize("dtype, apart", [("float32", 1e-6), ("bfloat16", 2**-7)])
@pytest.mark.parametrize("amx", [True, False])
def test_turned_kernels_multiply_as_they_did(one_device, monkeypatch, rows, dtype, apart, amx):
    """By XLA, as where nothing could be compiled."""
    monkeypatch.setattr("janus_jax.model.cpu.has_amx", lambda: amx)
    monkeypatch.setattr("janus_jax.model.cpu.registered", frozenset)
    linear = tiny.make_model(tiny.small(dtype=dtype)).image_head.fc2
    x = cache.put(np.random.default_rng(1).normal(size=(1, rows, 32)).astype(np.float32))
    turned = TurnedLinear(linear)
    assert turned.kernel.shape == linear.kernel.shape[::-1]
    np.testing.assert_allclose(turned(x), linear(x), rtol=apart, atol=1e-6)
    (product,) = (e for e in jax.make_jaxpr(turned)(x).eqns if e.primitive.name == "dot_general")
    first = product.invars[0].aval.ndim == 3  # the kernel, with an axis of one
    assert first == (rows <= 32 and (amx or dtype == "float32" or rows >= 16))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_models_see_in_bfloat16_near_float32(model, dtype):
    """Also with int8, where the rest is in float32: 6e-3 of the features at the 1.3B sizes."""
    narrow = model if dtype == "int8" else tiny.make_model(tiny.small(dtype=dtype))
    served = serving(narrow, int8=dtype == "int8")
    fc1 = served.understanding_encoder.blocks[1].mlp.fc1
    assert fc1.kernel.dtype == jnp.bfloat16 and fc1.kernel.shape[1] == 32, "[out, in]"
    rng = np.random.default_rng(0)
    pictures = cache.put(rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32))
    want, got = (jax.jit(lambda m, x: m.embed_images(x))(m, pictures) for m in (model, served))
    error = np.linalg.norm(got.astype(np.float32) - want) / np.linalg.norm(want)
    assert 1e-4 < error < 0.02
    kept = serving(model).understanding_encoder.blocks[1].mlp.fc1.kernel
    assert kept.dtype == jnp.float32 and kept.shape[1] == 32, "turned, but float32"


def test_a_kernel_becomes_int8_without_a_float32_copy(one_device):
    linear = Linear(256, 4096, sh.W_DF, sh.ACT_BTF, "float32", nnx.Rngs(0), bias=False)
    linear.kernel = nnx.Param(linear.kernel[...].astype(jnp.bfloat16))
    compiled = jax.jit(Int8Linear).lower(linear).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * linear.kernel.size


def test_on_a_gpu_int8_rounds_weights_alone(model, monkeypatch):
    monkeypatch.setattr(sh, "platform", lambda: "gpu")
    linear = model.image_head.fc2
    x = np.random.default_rng(1).normal(size=(2, 3, 32)).astype(np.float32)
    kernel, scale = (np.asarray(v) for v in int8(linear.kernel[...].T))
    want = x @ (kernel * scale[:, None]).T + np.asarray(linear.bias[...])
    got = np.asarray(Int8Linear(linear)(cache.put(x)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_row_of_zeros_stays_zero():
    values, scale = int8(jnp.zeros((1, 8)))
    assert not np.asarray(values).any() and np.isfinite(np.asarray(scale)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_weights_draw_and_answer(one_device, dtype):
    narrow = tiny.make_model(tiny.small(dtype=compute_type(dtype)))
    model = serving(narrow, int8=dtype == "int8")
    ids = generate_ids(
        model, tiny.processor(), "a red circle", cfg_scale=5.0, temperature=1.0, seed=1
    )
    assert (
        ids.shape == (1, 16) and ids.min() >= 0 and ids.max() < 64 and len(set(ids[0].tolist())) > 2
    )
    asked = [{"role": "user", "content": "what is it?"}]
    assert isinstance(understand(model, tiny.processor(), asked, max_new_tokens=8), str)


def test_a_model_of_one_head_draws(one_device):
    llm = dataclasses.replace(tiny.CONFIG.transformer, heads=1)
    assert draw(tiny.make_model(tiny.small(transformer=llm)), "a red circle").shape == (1, 16)


def draw(model, prompts, **options):
    return generate_ids(
        model, tiny.processor(), prompts, temperature=1.0, **({"cfg_scale": 5.0} | options)
    )


def test_prompts_that_are_equal_are_read_once(model, monkeypatch):
    reads = []
    read = reading.read
    monkeypatch.setattr(reading, "read", lambda *a, **how: reads.append(a) or read(*a, **how))
    draw(model, "a red circle", images_per_prompt=4)
    assert len(reads) == 2, "the prompt and its unconditional twin"
    prompts = ["a red circle", "a red square", "a blue circle of many words"]
    lengths = {len(tiny.processor().request(prompt)) for prompt in prompts}
    draw(model, prompts)
    assert len(reads) == 2 + 3 + len(lengths), "unconditional rows of equal length are one"


@pytest.mark.parametrize("scale, rows", [(0.0, 2), (1.0, 2), (2.0, 8)])
def test_a_branch_that_does_not_count_is_not_run(model, monkeypatch, scale, rows):
    seen, write = set(), programs.write
    spy = lambda *a, **how: seen.add(len(a[3])) or write(*a, **how)
    monkeypatch.setattr(programs, "write", spy)
    draw(model, "a red circle", images_per_prompt=2, cfg_scale=scale)
    assert seen == {rows}


def test_whatever_is_asked_compiles_little(model):
    """As many programs as there are numbers of rows and lengths of caches."""
    served = serving(model)
    decode.clear_caches()
    rng = np.random.default_rng(0)
    text = lambda n: " ".join(rng.choice(["a", "red", "circle"], n))
    said = lambda n: [{"role": "user", "content": text(n)}]
    for _ in range(12):
        draw(served, text(rng.integers(1, 50)), images_per_prompt=rng.integers(1, 9),
             cfg_scale=float(rng.choice([0, 1, 5])))  # fmt: skip
        understand_batch(
            served, tiny.processor(), [said(n) for n in rng.integers(1, 50, rng.integers(1, 9))],
            max_new_tokens=rng.integers(1, 60), top_p=float(rng.choice([0.5, 1])), temperature=1.0,
        )  # fmt: skip
    assert programs.write._cache_size() <= 4 and programs.read._cache_size() <= 2
    decode.clear_caches()
    assert programs.write._cache_size() == programs.read._cache_size() == 0


def test_more_rows_than_run_together_are_drawn_in_slices(model):
    alone = draw(model, "a red circle", images_per_prompt=9, seed=3)[8].tolist()
    told = []
    ids = draw(
        model, "a red circle", images_per_prompt=9, seed=3, progress=lambda *at: told.append(at)
    )
    assert ids[8].tolist() == alone and len(np.unique(ids, axis=0)) == 9
    assert told == [(128, 144), (144, 144)], "eight together on a CPU, then one"


def test_a_cache_grows_as_it_fills(model, monkeypatch):
    lengths, resize, held = [], programs.resize, []

    def growing(pair, n):
        lengths.append(n)
        larger = resize(pair, n)
        held.append(sum(x.nbytes for x in jax.live_arrays() if x.shape == pair[0].shape))
        return larger

    monkeypatch.setattr(programs, "resize", growing)
    prompt = [reading.Prompt(np.arange(5, 45, dtype=np.int32))]
    write = lambda: text_ids(model, prompt, [0], -1, 0.0, 1.0, 250)[0]
    grown = write()
    layers = model.config.transformer.layers
    assert lengths == [640] * layers
    assert held == [held[-1] * n for n in range(layers, 0, -1)], "a layer's old one goes at once"
    monkeypatch.setattr(cache, "AHEAD", 1000)
    assert write().tolist() == grown.tolist() and len(lengths) == layers


@pytest.mark.parametrize(("platform", "many"), [("gpu", 576), ("tpu", cache.AHEAD)])
def test_pictures_on_an_accelerator_have_one_cache(monkeypatch, platform, many):
    ahead = lambda rows, draws: cache.places_ahead(rows, draws, 576)
    assert ahead(2, True) == cache.AHEAD
    monkeypatch.setattr(sh, "platform", lambda: platform)
    assert cache.cache_length(64 + ahead(2, True)) == cache.cache_length(64 + 576)
    assert ahead(8, True) == many and ahead(2, False) == cache.AHEAD


def test_a_stream_tells_of_everything_once_and_may_end_it(model):
    prompt = [reading.Prompt(np.ones(32, np.int32))]
    run = functools.partial(text_ids, model, prompt, [0], -1, 0.0, 1.0, 10)
    (whole,), parts = run(), []
    run(lambda row, ids: parts.append(ids), often=True)
    assert np.concatenate(parts).tolist() == whole.tolist() and len(parts) == 10
    (stopped,) = run(lambda row, ids: (parts.append(ids), len(parts) == 13)[1], often=True)
    assert len(parts) == 13 and stopped.tolist() == whole[:3].tolist()


def test_a_table_in_bfloat16_is_not_widened_to_read_a_row(one_device):
    llm = dataclasses.replace(tiny.CONFIG.transformer, vocabulary=1 << 16)
    model = tiny.make_model(tiny.small(transformer=llm, dtype="bfloat16"))
    table = model.text_embedding.table[...]
    model.text_embedding.table = nnx.Param(table.astype(jnp.bfloat16))
    served = serving(model)
    row = engine.Request((reading.Prompt(np.ones(8, np.int32)),), False, 40, 0)
    run = engine.Engine(served)
    run.add(row)
    run.step()
    arguments = run.leaves, run.cache, run.drawn, run.hidden, run._rows([row]), 1, 4
    compiled = programs.write.lower(*arguments, tree=run.tree).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * table.size
