"""The C++ that decodes on a CPU: beside XLA's arithmetic, with and without the processor's newest
instructions, and where it cannot be compiled."""

import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.mesh import on_mesh
from support.sampling import PROMPTS, draw, make

from janus_jax.model import cpu, native, serving
from janus_jax.model.layers import rope_table, rotate
from janus_jax.sample.decode import clear_caches, text_ids
from janus_jax.sample.reading import Prompt

SOURCE = pathlib.Path(cpu.__file__).with_name("cpu.cc")
# What is used of the processor: all that it has, or AVX-512 without the instructions for narrow types.
PROCESSORS = {"native": (), "v4": ("-march=x86-64-v4",)}
KINDS = {"float32": 2e-6, "bfloat16": 2e-6, "int8": 0}


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
    for rows in (1, 7, 16, 17, 70):
        for size, out in ((2048, 300), (70, 53), (5, 1)):
            x, w = rng.normal(size=(rows, size)), rng.normal(size=(out, size))
            if kind == "int8":
                x, w = (np.clip(np.round(40 * y), -128, 127) for y in (x, w))
            x, w = jnp.asarray(x, kind), jnp.asarray(w, kind)
            result = jax.ShapeDtypeStruct((rows, out), jnp.int32 if kind == "int8" else jnp.float32)
            got = jax.ffi.ffi_call(f"{which}_product_{kind}", result)(x, w)
            want = np.asarray(x, np.float64) @ np.asarray(w, np.float64).T
            np.testing.assert_allclose(got, want, atol=KINDS[kind] * np.abs(want).max(), rtol=0)


@jax.jit
def plain(qkv, rope, keys, values, at):
    """As `serving.DecodingBlock` has it."""
    q, k, v = jnp.split(qkv, 3, 1)  # [B, 1, H, K]
    q, k, v = (x.swapaxes(1, 2).astype(keys.dtype) for x in (rotate(q, rope), rotate(k, rope), v))
    put = jax.vmap(lambda old, new, at: jax.lax.dynamic_update_slice_in_dim(old, new, at, 1))
    keys, values = put(keys, k, at), put(values, v, at)
    scores = jnp.einsum("bhtk,bhsk->bhts", q, keys) * q.shape[-1] ** -0.5
    scores = jnp.where(serving.seen_from(at[:, None], keys.shape[2]), scores, -1e30)
    y = jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(scores), values)
    return y[:, :, 0].astype(qkv.dtype), keys, values


@avx512
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 4, 96, 128), (5, 3, 17, 6), (1, 1, 1, 2)])
def test_a_token_attends_to_what_its_row_has_filled(shape, dtype):
    """Rows are at places of their own, the first and the last among them; what lies behind is of
    whoever had the row before."""
    rows, heads, places, size = shape
    rng = np.random.default_rng(0)
    qkv = jnp.asarray(rng.normal(size=(rows, 3, heads, size)), dtype)
    cache = [jnp.asarray(rng.normal(size=(rows, heads, places, size)), "float32") for _ in range(2)]
    at = jnp.asarray(np.resize([0, places - 1, places // 2], rows))
    rope = rope_table(at[:, None], size, 1e4)
    want, *written = plain(qkv, rope, *cache, at)
    with on_mesh():
        assert cpu.attends()
        got, *kept = jax.jit(cpu.attend)(qkv, rope, *cache, at)
    assert got.dtype == dtype
    # A sum that lies between two numbers of bfloat16 may become either.
    near = 1e-6 if dtype == "float32" else 2**-8
    np.testing.assert_allclose(got.astype("float32"), want.astype("float32"), atol=near)
    for a, b in zip(kept, written):
        np.testing.assert_allclose(a, b, atol=near)
    for old, new in zip(cache, kept):
        behind = np.arange(places) > np.asarray(at)[:, None]
        assert np.array_equal(*(np.moveaxis(np.asarray(x), 2, 1)[behind] for x in (old, new)))


@avx512
def test_no_place_beside_the_cache_is_written():
    """As `dynamic_update_slice` has it: the last place, or the first."""
    qkv = jnp.ones((2, 3, 1, 2))
    cache, at = jnp.zeros((2, 1, 4, 2)), jnp.asarray([9, -7])
    with on_mesh():
        assert cpu.attends()
        _, keys, values = jax.jit(cpu.attend)(
            qkv, rope_table(0 * at[:, None], 2, 1e4), cache, cache, at
        )
    for kept in (keys, values):
        assert np.asarray(kept)[..., 0].reshape(2, 4).tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


@avx512
def test_other_types_are_refused():
    with on_mesh():
        assert cpu.attends()
        cache, at = jnp.zeros((1, 1, 4, 2)), jnp.zeros(1, jnp.int32)
        rope = rope_table(at[:, None], 2, 1e4)
        with pytest.raises(Exception, match="neither float32 nor bfloat16"):
            jax.jit(cpu.attend)(jnp.ones((1, 3, 1, 2), "float16"), rope, cache, cache, at)
        narrow = cache.astype("bfloat16")
        with pytest.raises(Exception, match="F32"):
            jax.jit(cpu.attend)(jnp.ones((1, 3, 1, 2)), rope, narrow, narrow, at)


@pytest.mark.parametrize(("fsdp", "tensor", "own"), [(1, 2, 8), (2, 1, 1)])
def test_split_heads_and_meshes_of_several_processes_have_xla_s(monkeypatch, fsdp, tensor, own):
    monkeypatch.setattr(jax, "local_device_count", lambda: own)
    with on_mesh(fsdp=fsdp, tensor=tensor):
        assert not cpu.attends() and not cpu.multiplies("float32", 2)


@avx512
def test_a_token_that_is_not_finite_stays_so():
    """The loop that writes tells it from the logits."""
    qkv = jnp.full((1, 3, 1, 4), jnp.nan)
    cache, at = jnp.zeros((1, 1, 8, 4)), jnp.ones(1, jnp.int32)
    with on_mesh():
        assert cpu.attends()
        got, *_ = jax.jit(cpu.attend)(qkv, rope_table(at[:, None], 4, 1e4), cache, cache, at)
    assert np.isnan(got).all()


@avx512
@pytest.mark.parametrize(("fsdp", "int8"), [(1, False), (2, True)])
def test_pictures_and_answers_are_the_same_ids_without(monkeypatch, fsdp, int8):
    def written():
        clear_caches()
        with on_mesh(fsdp=fsdp):
            model = serving.serving(make(), int8)
            assert cpu.attends() == bool(cpu.registered())
            prompts = [Prompt(np.arange(5, n, dtype=np.int32)) for n in (9, 45)]
            text = text_ids(model, prompts, [0, 1], -1, 1.0, 1.0, 20)
            return np.concatenate([*draw(model, PROMPTS, seed=3), *text])

    assert "attention" in cpu.registered()
    called = set()
    ffi_call = jax.ffi.ffi_call
    monkeypatch.setattr(jax.ffi, "ffi_call", lambda *a, **k: called.add(a[0]) or ffi_call(*a, **k))
    with_it = written()
    product = f"product_{'int8' if int8 else 'float32'}"
    assert called >= {f"janus_jax_{name}" for name in {"attention", product} & cpu.registered()}
    called.clear()
    monkeypatch.setattr(cpu, "registered", frozenset)
    without = written()
    clear_caches()
    assert np.array_equal(with_it, without) and not called


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
