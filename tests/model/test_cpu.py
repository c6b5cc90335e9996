"""The C++ that decodes on a CPU: beside XLA's arithmetic, with and without the processor's newest
instructions, and where it cannot be compiled."""

import dataclasses
import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.sampling import PROMPTS, draw, make

from janus_jax.model import cpu, native, serving
from janus_jax.model import sharding as sh
from janus_jax.model.layers import Linear, rope_table, rotate
from janus_jax.sample.cache import put
from janus_jax.sample.decode import clear_caches, text_ids
from janus_jax.sample.reading import Prompt
from janus_jax.weights import load

SOURCE = pathlib.Path(cpu.__file__).with_name("cpu.cc")
# What is used of the processor: all that it has, or AVX-512 without the instructions for narrow types.
PROCESSORS = {"native": (), "v4": ("-march=x86-64-v4",)}
# What is off the largest result by at most so much.
KINDS = {"float32": 2e-6, "bfloat16": 2e-6, "bfloat16_rounded": 2**-8, "int8": 0}


no_compiler = not any(map(shutil.which, native.COMPILERS))
avx512 = pytest.mark.skipif(
    no_compiler or not cpu.has("avx512f"), reason="for processors with AVX-512, and a compiler"
)
compiles = pytest.mark.skipif(no_compiler, reason="no C++ compiler")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """compiled(which) gives prefix and names of the functions made for that processor."""

    @functools.cache
    def of(which):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp(which)))
            patch.setattr(native, "OPTIONS", native.OPTIONS + PROCESSORS[which])
            library = native.library(SOURCE)
        names = [name for name in cpu.NAMES if hasattr(library, name)]
        for name in names:
            capsule = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(f"{which}_{name}", capsule, platform="cpu")
        return names

    return of


@avx512
@pytest.mark.parametrize("which", PROCESSORS)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_numpy(compiled, kind, which):
    """Of rows that are few and many, and sizes that are no multiple of anything."""
    if f"product_{kind}" not in compiled(which):
        assert kind == "int8" and (which == "v4" or not cpu.has("avx512_bf16"))
        pytest.skip("without these instructions XLA multiplies int8")
    rng = np.random.default_rng(0)
    dtype = kind.removesuffix("_rounded")
    found = {"float32": "float32", "bfloat16": "float32", "int8": "int32"}.get(kind, dtype)
    for rows in (1, 7, 16, 17, 70):
        for size, out in ((2048, 300), (70, 53), (5, 1)):
            x, w = rng.normal(size=(rows, size)), rng.normal(size=(out, size))
            x[40:] = 0  # a prompt is filled up with such rows
            if kind == "int8":
                x, w = (np.clip(np.round(40 * y), -128, 127) for y in (x, w))
            x, w = jnp.asarray(x, dtype), jnp.asarray(w, dtype)
            result = jax.ShapeDtypeStruct((rows, out), found)
            got = jax.ffi.ffi_call(f"{which}_product_{kind}", result)(x, w)
            want = np.asarray(x, np.float64) @ np.asarray(w, np.float64).T
            atol = KINDS[kind] * np.abs(want).max()
            np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=atol, rtol=0)
            assert not np.asarray(got)[40:].any()


@avx512
def test_sums_are_rounded_to_the_nearest_bfloat16(compiled):
    """The even one of two that are as near; what is not finite stays so."""
    assert "product_bfloat16_rounded" in compiled("native")
    rng = np.random.default_rng(0)
    for rows in (3, 70):
        x = jnp.asarray(rng.normal(size=(rows, 48)), "bfloat16").at[1, 0].set(jnp.nan)
        x = x.at[2, 3].set(jnp.inf)
        w = jnp.asarray(np.abs(rng.normal(size=(30, 48))) + 0.1, "bfloat16")
        exact, rounded = (
            jax.ffi.ffi_call(f"native_product_{kind}", jax.ShapeDtypeStruct((rows, 30), found))(
                x, w
            )
            for kind, found in (("bfloat16", "float32"), ("bfloat16_rounded", "bfloat16"))
        )
        assert np.isnan(exact[1]).all() and np.isinf(exact[2]).all()
        exact = exact.astype("bfloat16")
        np.testing.assert_array_equal(*(np.asarray(x, np.float32) for x in (exact, rounded)))


@jax.jit
def plain(qkv, rope, keys, values, places):
    """As `serving.DecodingBlock` has it, of tokens that lie one behind another, their rows filled up
    with some that are nowhere."""
    q, k, v = (x[:, :, 0] for x in jnp.split(qkv, 3, 2))  # [B, T, H, K]
    q, k, v = (x.swapaxes(1, 2).astype(keys.dtype) for x in (rotate(q, rope), rotate(k, rope), v))
    length = keys.shape[2]
    where = jnp.where(places < 0, length, places)  # beyond the last: dropped
    put = jax.vmap(lambda old, new, at: old.at[:, at].set(new, mode="drop"))
    keys, values = put(keys, k, where), put(values, v, where)
    q, k, v = (x.astype("float32") for x in (q, keys, values))
    scores = jnp.einsum("bhtk,bhsk->bhts", q, k) * q.shape[-1] ** -0.5
    scores = jnp.where(serving.seen_from(places, length), scores, -1e30)
    y = jnp.einsum("bhts,bhsk->bthk", jax.nn.softmax(scores), v)
    return jnp.where((places < 0)[..., None, None], 0, y).astype(qkv.dtype), keys, values


def attend_with(which, qkv, rope, keys, values, places):
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    y = jax.ShapeDtypeStruct((*qkv.shape[:2], *qkv.shape[3:]), qkv.dtype)
    keys, values = kept(keys), kept(values)
    call = jax.ffi.ffi_call(
        f"{which}_attention", (y, like(keys), like(values)), input_output_aliases={4: 1, 5: 2}
    )
    y, *pair = call(qkv, *rope, places, keys, values)
    assert {x.dtype for x in pair} == {keys.dtype}
    return y, *(serving.cast(x, qkv.dtype) for x in pair)


def kept(x):
    """As a cache keeps it."""
    return serving.cast(x, "uint16") if x.dtype == "bfloat16" else x


@avx512
@pytest.mark.parametrize("which", PROCESSORS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [1, 13])
@pytest.mark.parametrize("shape", [(2, 4, 96, 128), (5, 3, 17, 6), (1, 1, 1, 2), (3, 2, 70, 66)])
def test_tokens_attend_to_what_their_row_has_filled(compiled, shape, tokens, dtype, which):
    """Rows are at places of their own, the first and the last among them; what lies behind is of
    whoever had the row before; the last tokens of a row may be nowhere."""
    assert "attention" in compiled(which)
    rows, heads, length, size = shape
    tokens = min(tokens, length)
    rng = np.random.default_rng(0)
    qkv = jnp.asarray(rng.normal(size=(rows, tokens, 3, heads, size)), dtype)
    cache = [jnp.asarray(rng.normal(size=(rows, heads, length, size)), dtype) for _ in range(2)]
    first = np.resize([0, length - tokens, (length - tokens) // 2], rows)
    places = first[:, None] + np.arange(tokens)
    places[1:, max(tokens - 2, 1) :] = -1
    places = jnp.asarray(places)
    rope = rope_table(places, size, 1e4)
    want, *written = plain(qkv, rope, *cache, places)
    got, *found = jax.jit(functools.partial(attend_with, which))(qkv, rope, *cache, places)
    assert got.dtype == dtype
    # A sum that lies between two numbers of bfloat16 may become either, as may a share.
    step = 1e-6 if dtype == "float32" else 2**-7
    close = functools.partial(np.testing.assert_allclose, rtol=step, atol=2 * step)
    close(*(x.astype("float32") for x in (got, want)))
    for a, b in zip(found, written):
        close(*(x.astype("float32") for x in (a, b)))
    for old, new in zip(cache, found):
        behind = np.arange(length) > np.asarray(places).max(1)[:, None]
        assert np.array_equal(*(np.moveaxis(np.asarray(x), 2, 1)[behind] for x in (old, new)))


@avx512
@pytest.mark.parametrize("which", PROCESSORS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 70, 3, 64), (1, 7, 2, 88), (3, 1, 1, 5), (1, 64, 1, 16)])
def test_a_picture_s_tokens_attend_to_all(compiled, shape, dtype, which):
    assert "pictures" in compiled(which)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(3 * rng.normal(size=shape), dtype) for _ in range(3))
    got = jax.ffi.ffi_call(f"{which}_pictures", jax.ShapeDtypeStruct(shape, dtype))(q, k, v)
    exact = (np.asarray(x, np.float64) for x in (q, k, v))
    want = numpy_attention(*exact)
    near = 2e-6 if dtype == "float32" else 2**-6
    np.testing.assert_allclose(np.asarray(got, np.float64), want, atol=near * np.abs(want).max())


def numpy_attention(q, k, v):
    scores = np.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhts,bshk->bthk", weights / weights.sum(-1, keepdims=True), v)


@avx512
def test_no_place_beside_the_cache_is_written_or_seen():
    qkv = jnp.ones((2, 1, 3, 1, 2))
    cache, places = jnp.zeros((2, 1, 4, 2)), jnp.asarray([[4], [-1]])
    with on_mesh():
        assert cpu.attends()
        rope = rope_table(0 * places, 2, 1e4)
        found = jax.jit(cpu.attend)(qkv, rope, cache, cache, places)
    for x in found:
        assert not np.asarray(x).any()


@avx512
def test_other_types_are_refused():
    with on_mesh():
        assert cpu.attends()
        cache, places = jnp.zeros((1, 1, 4, 2)), jnp.zeros((1, 1), jnp.int32)
        rope = rope_table(places, 2, 1e4)
        half = jnp.ones((1, 1, 3, 1, 2), "float16")
        with pytest.raises(Exception, match="neither float32 nor bfloat16"):
            jax.jit(cpu.attend)(half, rope, *[cache.astype(half.dtype)] * 2, places)
        with pytest.raises(Exception, match="neither float32 nor bfloat16"):
            cpu.attend_to_all(*[half[:, :, 0]] * 3)
        ones = jnp.ones((1, 1, 3, 1, 2))
        with pytest.raises(Exception, match="do not fit together"):
            jax.jit(cpu.attend)(ones, rope, cache, cache, jnp.zeros((1, 2), jnp.int32))
        result = jax.ShapeDtypeStruct((1, 4, 2, 8), "bfloat16")
        picture = jnp.ones(result.shape, "float32")
        with pytest.raises(Exception, match="do not fit together"):
            narrow = picture.astype("bfloat16")
            jax.ffi.ffi_call("janus_jax_pictures", result)(picture, picture, narrow)
        for given, held in ("float32", "uint16"), ("bfloat16", "bfloat16"):
            narrow = jnp.zeros((1, 1, 4, 2), held)
            with pytest.raises(Exception, match="do not fit together"):
                jax.jit(cpu.attend)(ones.astype(given), rope, narrow, narrow, places)
        with pytest.raises(Exception, match="other axes"):
            jax.jit(functools.partial(attend_with, "janus_jax"))(
                ones, rope, *[cache[0]] * 2, places
            )


@avx512
def test_a_narrow_cache_is_read_and_written_by_xla_too():
    """As where all of a picture's tokens see each other, or rows lie at places of their own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 32)).astype("bfloat16")
    places = np.asarray([3, 0], np.int32)[:, None] + np.arange(5, dtype=np.int32)
    with on_mesh(fsdp=2):
        model = serving.serving(tiny.make_model(tiny.small(dtype="bfloat16")))
        assert load.compute_type("int8") == "bfloat16"
        blank = serving.blank_cache(model, 2, 16)
        assert {leaf.dtype for pair in blank for leaf in pair} == {np.dtype("uint16")}
        before = rng.normal(size=blank[0][0].shape).astype("bfloat16")
        cache = [(put(before.view("uint16")),) * 2 for _ in blank]
        x, places = put(x), put(places)
        masks = None, serving.seen_from(places, 16)
        run = jax.jit(lambda mask: model.transformer.cached(x, places, mask, cache, places[:, 0]))
        ours, xla = map(run, masks)
    narrow = lambda kept: np.asarray(kept).view("bfloat16").astype("float32")
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(xla[1])):
        np.testing.assert_allclose(narrow(a), narrow(b), atol=0.05)
        assert np.array_equal(narrow(b)[0, :, 8:], before[0, :, 8:].astype("float32"))
    np.testing.assert_allclose(*(np.asarray(y[0], "float32") for y in (ours, xla)), atol=0.05)


@pytest.mark.parametrize(("fsdp", "tensor", "own"), [(1, 2, 8), (2, 1, 1)])
def test_split_heads_and_meshes_of_several_processes_have_xla_s(monkeypatch, fsdp, tensor, own):
    monkeypatch.setattr(jax, "local_device_count", lambda: own)
    with on_mesh(fsdp=fsdp, tensor=tensor):
        assert not cpu.attends() and not cpu.multiplies("float32", 2)
        assert serving.cache_dtype("bfloat16") == load.compute_type("int8") == "float32"


@avx512
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens", [1, 7])
def test_a_token_that_is_not_finite_stays_so(tokens, dtype):
    """The loop that writes tells it from the logits."""
    qkv = jnp.ones((1, tokens, 3, 1, 4), dtype).at[:, -1].set(jnp.nan)
    cache, places = kept(jnp.zeros((1, 1, 8, 4), dtype)), jnp.arange(1, 1 + tokens)[None]
    with on_mesh():
        assert cpu.attends()
        got, *_ = jax.jit(cpu.attend)(qkv, rope_table(places, 4, 1e4), cache, cache, places)
    assert np.isnan(got[:, -1]).all()


@avx512
@pytest.mark.parametrize(
    ("fsdp", "int8"), [pytest.param(1, False, marks=pytest.mark.slow), (2, True)]
)
def test_pictures_and_answers_are_the_same_ids_without(monkeypatch, called, fsdp, int8):
    def written():
        clear_caches()
        with on_mesh(fsdp=fsdp):
            model = serving.serving(make(), int8)
            assert cpu.attends() == bool(cpu.registered())
            prompts = [Prompt(np.arange(5, n, dtype=np.int32)) for n in (9, 45)]
            text = text_ids(model, prompts, [0, 1], -1, 1.0, 1.0, 20)
            return np.concatenate([*draw(model, PROMPTS, seed=3), *text])

    assert "attention" in cpu.registered()
    with_it = written()
    product = f"product_{'int8' if int8 else 'float32'}"
    assert called >= {f"janus_jax_{name}" for name in {"attention", product} & cpu.registered()}
    called.clear()
    monkeypatch.setattr(cpu, "registered", frozenset)
    without = written()
    clear_caches()
    assert np.array_equal(with_it, without) and not called


@pytest.fixture
def called(monkeypatch):
    """The names of the functions of `cpu.cc` that what is traced calls."""
    names = set()
    ffi_call = jax.ffi.ffi_call
    monkeypatch.setattr(jax.ffi, "ffi_call", lambda *a, **k: names.add(a[0]) or ffi_call(*a, **k))
    return names


@avx512
@pytest.mark.parametrize(("fsdp", "int8"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("tower", ["siglip", "other"])
def test_a_tower_that_is_served_sees_what_it_sees_in_training(called, fsdp, int8, tower):
    """With int8 it computes in bfloat16; a norm over queries and keys does not."""
    other = {"activation": "swiglu", "variant": ("qk_norm", "class_token", "rms_norm")}
    config = tiny.CONFIG.understanding_encoder
    config = dataclasses.replace(config, **other) if tower == "other" else config
    see = jax.jit(lambda model, x: model.embed_images(x))
    with on_mesh(fsdp=fsdp):
        model = make(tiny.small(understanding_encoder=config))
        assert cpu.attends()
        side = config.image_size
        pictures = np.random.default_rng(0).uniform(-1, 1, (2, side, side, 3))
        pictures = put(pictures.astype(np.float32))
        want = np.asarray(see(model, pictures))
        assert not called
        got = np.asarray(see(serving.serving(model, int8), pictures), np.float32)
    assert "janus_jax_pictures" in called
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert error < (0.02 if int8 else 2e-6)


@avx512
@pytest.mark.parametrize("bias", [False, True])
def test_a_bias_is_added_before_the_sum_is_rounded(called, one_device, bias):
    linear = Linear(64, 48, sh.W_DF, sh.ACT_BTF, "bfloat16", nnx.Rngs(0), bias)
    jax.jit(serving.TurnedLinear(linear)).lower(jnp.ones((1, 2, 64), "bfloat16"))
    assert called == {"janus_jax_product_bfloat16" + ("" if bias else "_rounded")}


def test_without_a_compiler_it_is_said_and_decoding_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(cpu, "_registered", cpu._registered.__wrapped__)
    monkeypatch.setattr(cpu, "has", lambda instructions: True)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not cpu.registered()
    said = capsys.readouterr().err
    assert "slower: no C++ compiler (c++, g++, clang++, or what CXX names) was found" in said
    with on_mesh():
        assert not cpu.attends() and not cpu.multiplies("float32", 2)
        assert serving.cache_dtype("bfloat16") == load.compute_type("int8") == "float32"


def test_a_processor_without_avx512_compiles_nothing(monkeypatch, capsys):
    monkeypatch.setattr(cpu, "_registered", cpu._registered.__wrapped__)
    monkeypatch.setattr(cpu, "has", lambda instructions: False)
    monkeypatch.setattr(native, "library", None)
    assert not cpu.registered() and not capsys.readouterr().err


@compiles
def test_a_compiler_that_does_not_know_the_processor_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "OPTIONS", (*native.OPTIONS, "-mno-avx512f"))
    with pytest.raises(native.Missing, match="does not know the processor's AVX-512"):
        native.library(SOURCE)


@compiles
@pytest.mark.parametrize(
    ("source", "why"),
    [("int main( {", "error:"), ("#include <no/such.h>\n", "no/such.h")],
    ids=["wrong", "headers gone"],
)
def test_the_compiler_s_first_error_is_told(tmp_path, monkeypatch, source, why):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "some.cc").write_text(source, encoding="utf-8")
    with pytest.raises(native.Missing, match=why):
        native.library(tmp_path / "some.cc")
    assert not list((tmp_path / "cache" / "janus_jax" / "native").iterdir()), "nothing half is left"


@compiles
def test_what_was_compiled_is_kept_by_source_and_compiler(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    source = tmp_path / "some.cc"
    kept = lambda: {x.name: x.stat().st_mtime_ns for x in (cache / "janus_jax/native").iterdir()}

    def number(text):
        source.write_text(f'extern "C" int number() {{ return {text}; }}', encoding="utf-8")
        return native.library(source).number()

    assert number(1) == 1
    first = kept()
    assert number(1) == 1 and kept() == first, "not compiled again"
    assert number(2) == 2 and len(kept()) == 2
    monkeypatch.setattr(native, "OPTIONS", (*native.OPTIONS, "-DANOTHER_PROCESSOR"))
    assert number(2) == 2 and len(kept()) == 3


@compiles
def test_a_kept_library_that_is_broken_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "some.cc"
    source.write_text('extern "C" int number() { return 3; }', encoding="utf-8")
    native.library(source)
    (kept,) = (tmp_path / "janus_jax/native").iterdir()
    whole = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(whole[:100])
    assert native.library(source).number() == 3 and len(kept.read_bytes()) == len(whole)


@compiles
def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "janus_jax").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(native.Missing, match=r"Not a directory|File exists"):
        native.library(SOURCE)


def test_a_cxx_that_is_no_command_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "g++ '-O2")
    with pytest.raises(native.Missing, match=r"""CXX is "g\+\+ '-O2": No closing quotation"""):
        native.library(SOURCE)


@compiles
def test_cxx_names_the_compiler(tmp_path, monkeypatch):
    """With options of its own, as people set it."""
    wrapper = tmp_path / "mine"
    compiler = next(filter(shutil.which, native.COMPILERS))
    wrapper.write_text(
        f'#!/bin/sh\necho "called $1" >> {tmp_path}/log\nexec {compiler} "$@"\n', encoding="utf-8"
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"{wrapper} -g0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "some.cc"
    source.write_text('extern "C" int number() { return 1; }', encoding="utf-8")
    assert native.library(source).number() == 1
    assert (tmp_path / "log").read_text(encoding="utf-8").count("called -g0") == 2
