"""The kernels that decode on NVIDIA's GPUs, run on a CPU as Pallas interprets them."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.sampling import PROMPTS, draw, make

from janus_jax.model import gpu, serving
from janus_jax.model import sharding as sh
from janus_jax.model.attentions import decoding
from janus_jax.model.layers import rope_table, rotate
from janus_jax.sample.decode import text_ids
from janus_jax.sample.reading import Prompt

# Rows and heads that share their places among blocks, and so many that they do not.
SHAPES = {"few": (2, 4, 640, 128), "many": (9, 16, 256, 32)}


@jax.jit
def plain(qkv, rope, keys, values, at):
    """As `serving.DecodingBlock` has it."""
    q, k, v = jnp.split(qkv, 3, 1)  # [B, 1, H, K]
    q, k, v = (x.swapaxes(1, 2).astype(keys.dtype) for x in (rotate(q, rope), rotate(k, rope), v))
    put = jax.vmap(lambda old, new, at: jax.lax.dynamic_update_slice_in_dim(old, new, at, 1))
    keys, values = put(keys, k, at), put(values, v, at)
    wide = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    scores = wide("bhtk,bhsk->bhts", q, keys) * q.shape[-1] ** -0.5
    scores = jnp.where(serving.seen_from(at[:, None], keys.shape[2]), scores, -1e30)
    return wide("bhts,bhsk->bthk", jax.nn.softmax(scores), values), keys, values


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-6), ("bfloat16", 0.01)])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_token_attends_to_what_its_row_has_filled(shape, dtype, near):
    """Rows are at places of their own, the first and the last among them; what lies behind is of
    whoever had the row before."""
    rows, heads, places, size = shape
    draw = np.random.default_rng(0)
    of = lambda *shape: jnp.asarray(draw.normal(size=shape), dtype)
    qkv = of(rows, 3, heads, size)
    cache = [of(rows, heads, places, size) for _ in range(2)]
    at = jnp.asarray([0, places - 1, *draw.integers(0, places, rows - 2)], jnp.int32)
    rope = rope_table(at[:, None], size, 1e4)
    want, *written = plain(qkv, rope, *cache, at)
    got, *kept = decoding.attended(qkv, *rope, *cache, at, interpret=True)
    assert got.dtype == cache[0].dtype
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=near)
    for a, b in zip(kept, written):
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), atol=near)


@pytest.mark.parametrize(
    ("heads", "places", "parts"),
    [(32, 640, 4), (8, 640, 8), (48, 640, 2), (8, 256, 4), (128, 4096, 1), (512, 640, 1)],
)
def test_places_are_shared_among_a_power_of_two(heads, places, parts):
    assert decoding.shares(heads, places) == parts


def test_a_cache_that_tiles_do_not_divide_is_refused():
    cache = jnp.zeros((2, 2, 100, 16))
    qkv, angle = jnp.zeros((2, 3, 2, 16)), jnp.zeros((2, 1, 1, 8))
    with pytest.raises(ValueError, match="a cache of 100 places: no multiple of 64"):
        decoding.attended(qkv, angle, angle, cache, cache, jnp.zeros(2, jnp.int32), interpret=True)


@pytest.fixture
def like_a_gpu(monkeypatch):
    """What the model asks of its platform is answered as on a GPU, and kernels are interpreted. What
    was traced for the CPU is not taken, nor is anything left for it."""
    monkeypatch.setattr(sh, "platform", lambda: "gpu")
    monkeypatch.setattr(serving, "_decoding_block", serving.DecodingBlock)
    monkeypatch.setattr(gpu, "token", functools.partial(gpu.token, interpret=True))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("dtype", "int8", "near"),
    [("float32", False, 1e-6), ("float32", True, 1e-6), ("bfloat16", False, 0.01)],
)
def test_a_token_is_that_of_the_layers_without_kernels(
    like_a_gpu, monkeypatch, dtype, int8, near, turned
):
    """However the layers keep their kernels."""
    kind = serving.Int8Linear if int8 else serving.TurnedLinear if turned else None
    monkeypatch.setattr(serving, "kernel_kind", lambda asked: kind if asked == int8 else None)
    with on_mesh():
        llm = serving.serving(make(tiny.small(dtype=dtype)), int8).transformer
        assert gpu.difference(llm) < near


def test_pictures_and_answers_are_the_same_ids_with_kernels(like_a_gpu):
    with on_mesh(fsdp=2):
        model = serving.serving(make())
        kernels = copy.copy(model)
        kernels.transformer = copy.copy(model.transformer)
        kernels.transformer.kernels = True
        drawn = lambda model: draw(model, PROMPTS[:3], seed=3)
        assert np.array_equal(drawn(model), drawn(kernels))
        prompts = [Prompt(np.arange(5, n, dtype=np.int32)) for n in (9, 45)]
        written = lambda model: np.stack(text_ids(model, prompts, [0, 1], -1, 1.0, 1.0, 20))
        assert np.array_equal(written(model), written(kernels))


SUITED = {"width": 64, "heads": 4}  # of the tiny model's transformer


def served(**sizes):
    llm = dataclasses.replace(tiny.CONFIG.transformer, **sizes)
    return serving.serving(make(tiny.small(transformer=llm))).transformer


@pytest.mark.parametrize(
    ("sizes", "tensor", "taken"),
    [
        (SUITED, 1, True),
        (SUITED, 2, False),
        (SUITED | {"heads": 8}, 1, False),
        (SUITED | {"width": 96, "heads": 6}, 1, False),
        (SUITED | {"mlp_width": 66}, 1, False),
    ],
    ids=["suited", "split", "small heads", "no power of two", "no parts"],
)
def test_models_that_triton_can_hold_are_written_with_kernels(like_a_gpu, sizes, tensor, taken):
    with on_mesh(tensor=tensor):
        assert served(**sizes).kernels is taken


def test_kernels_are_compared_first_and_give_way_aloud(like_a_gpu, monkeypatch, capsys):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(gpu, "_FOUND", {})
    with on_mesh():
        assert served(**SUITED).kernels and not capsys.readouterr().err
        right = gpu.token
        wrong = lambda *args: jax.tree.map(lambda x: 1.1 * x, right(*args))
        monkeypatch.setattr(gpu, "token", wrong)
        assert served(**SUITED).kernels, "it was found once"
        gpu._FOUND.clear()
        assert not served(**SUITED).kernels
        said = capsys.readouterr().err
        assert "results off by 0.1 of the largest, 0.05 allowed" in said and "slower" in said
        monkeypatch.setattr(gpu, "token", functools.partial(gpu.token, missing=True))
        gpu._FOUND.clear()
        assert not served(**SUITED).kernels
        assert "TypeError" in capsys.readouterr().err


def test_on_other_platforms_no_token_is_written_with_kernels():
    with on_mesh():
        assert not served(**SUITED).kernels
