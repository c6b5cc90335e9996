"""Weights directories that are whole or refused, loaded bit for bit in either form."""

import copy
import functools
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file
from support import foreign, tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.model.serving import Unrolled, serving
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.source import open_source

FLAMES = ("understanding_adaptor", "generation_adaptor", "image_head")
RATIO = {"understanding": 1, "text": 1, "generation": 2}
TX = tiny.TX


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(a weights directory, the parameters in it)."""
    directory = tmp_path_factory.mktemp("run") / "stage3"
    with on_mesh():
        params = tiny.make_state(TX, FLAMES).params
        processor = copy.copy(tiny.processor())
        processor.cfg_scale, processor.temperature = 2.5, 0.5
        export(directory, params, tiny.CONFIG, processor)
    return directory, tiny.numbers(params)


def test_load_gives_back_what_was_exported(weights, one_device):
    directory, params = weights
    model, processor = janus_jax.load(directory, unrolled=False)
    assert model.config == tiny.CONFIG
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), params)
    ours = tiny.processor()
    assert processor.template == ours.template
    assert processor.tokenizer.backend.to_str() == ours.tokenizer.backend.to_str()
    assert (processor.understanding_tokens, processor.generation_tokens) == (16, 16)
    assert (processor.cfg_scale, processor.temperature) == (2.5, 0.5), "as the fixture said so"
    assert not directory.with_name("stage3.partial").exists()


@pytest.mark.parametrize(
    "path, options, says",
    [
        (None, {}, "path is None, a NoneType: give the folder or file of the weights"),
        (b"a/b", {}, "path is b'a/b', a bytes: give"),
        (["model"], {}, r"path is \['model'\], a list: give"),
        ("here", {"dtype": 5}, "dtype 5: must be one of float32, bfloat16, int8"),
        ("here", {"dtype": ["float32"]}, r"dtype \['float32'\]: must be one of"),
        ("here", {"unrolled": "no"}, "unrolled is 'no': must be True or False, not a str"),
        ("here", {"allow_pickle": "no", "allow_extra": 0}, "allow_pickle is 'no'(.|\n)*allow_extra is 0"),
    ],
    ids=str,
)  # fmt: skip
def test_load_names_the_argument_it_cannot_use(path, options, says):
    with pytest.raises((TypeError, ValueError), match=says):
        janus_jax.load(path, **options)


def test_load_on_a_mesh_splits_the_weights(weights):
    with on_mesh(1, 4, 2):
        model, _ = janus_jax.load(weights[0], unrolled=False)
        tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), weights[1])
        assert not model.text_head.linear.kernel[...].is_fully_replicated


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 4, 2)], ids=str)
@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_load_unrolls_layer_by_layer_what_serving_unrolls_whole(weights, mesh, dtype):
    with on_mesh(*mesh):
        model, _ = janus_jax.load(weights[0], dtype)
        stacked, _ = janus_jax.load(
            weights[0], "bfloat16" if dtype == "int8" else dtype, unrolled=False
        )
        want = serving(stacked, int8=dtype == "int8")
        assert type(model.transformer) is Unrolled and serving(model) is model
        tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), nnx.to_pure_dict(nnx.state(want)))
        kernel = model.transformer.layers[1].gate_up.kernel[...]
        assert kernel.dtype == (dtype or "float32")
        assert kernel.shape == (128, 32), "turned"
        assert kernel.is_fully_replicated == (mesh == (1, 1, 1))


def test_the_unrolled_form_is_not_exported(weights, tmp_path, one_device):
    model, processor = janus_jax.load(weights[0])
    params = nnx.to_pure_dict(nnx.state(model))
    with pytest.raises(ValueError, match=r"unrolled=False"):
        export(tmp_path / "out", params, model.config, processor)
    assert not list(tmp_path.iterdir())


def test_load_in_bfloat16_leaves_the_tokenizer_in_float32(weights, one_device):
    model, _ = janus_jax.load(weights[0], dtype="bfloat16")
    dtypes = {}
    for name, x in tiny.numbers(nnx.to_pure_dict(nnx.state(model))).items():
        dtypes.setdefault(name.split(".")[0], set()).add(str(x.dtype))
    assert dtypes.pop("generation_encoder") == {"float32"}
    assert set(map(frozenset, dtypes.values())) == {frozenset({"bfloat16"})} and len(dtypes) == 8
    assert model.config.dtype == "bfloat16" and model.transformer.dtype == jnp.bfloat16


@pytest.mark.processes
def test_load_works_where_nobody_set_a_mesh(weights):
    code = (
        "import sys, janus_jax; m, p = janus_jax.load(sys.argv[1]);"
        "print(m.text_head.linear.kernel.shape, p.generation_tokens)"
    )
    from support.paths import ROOT as root

    done = subprocess.run(
        [sys.executable, "-c", code, str(weights[0])], cwd=root, capture_output=True, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["(384,", "32)", "16"]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"path": "z" * 500_000}, "too long for a path"),
        ({"path": "$NO_SUCH/a"}, "NO_SUCH is not set"),
        ({"path": ".", "revision": "z" * 500_000}, "revision 'zz.*is for hub ids"),
    ],
    ids=["long", "variable", "revision"],
)
def test_what_load_is_given_is_told_in_short(given, said):
    with pytest.raises(ValueError, match=said) as error:
        janus_jax.load(**given)
    assert len(str(error.value)) < 400


def test_load_elsewhere_says_what_is_wrong(tmp_path, one_device):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*no weights directory"):
        janus_jax.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        janus_jax.load(tmp_path)


def test_a_bit_that_flips_after_the_export_is_noticed(weights, tmp_path, one_device):
    shutil.copytree(weights[0], tmp_path / "copy")
    with open(tmp_path / "copy" / WEIGHTS_FILE, "r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(
        ValueError, match=r"checksum: understanding_encoder.positions is not what was written"
    ):
        janus_jax.load(tmp_path / "copy")


def test_weights_stored_in_bfloat16_stay_so(weights, tmp_path, one_device):
    convert.to_layout(open_source(weights[0]), tmp_path / "half", "janus_jax", "bfloat16")
    model, _ = janus_jax.load(tmp_path / "half", unrolled=False)
    assert model.config.dtype == "bfloat16" and model.image_head.fc1.kernel.dtype == jnp.bfloat16
    assert model.generation_encoder.codebook.dtype == jnp.float32
    params, _ = import_weights(tmp_path / "half", tiny.make_state(TX, FLAMES).params)
    kernel = params["image_head"]["fc1"]["kernel"]
    assert kernel.dtype == jnp.float32, (
        "a stage trains float32 weights, whatever they were stored in"
    )
    assert np.array_equal(kernel, model.image_head.fc1.kernel[...].astype(jnp.float32))


def test_every_tensor_that_does_not_fit_is_named(weights, tmp_path, one_device):
    tensors = load_file(weights[0] / WEIGHTS_FILE)
    del tensors["text_head.linear.kernel"]
    tensors["transformer.norm.bias"] = np.zeros(3, np.float32)
    tensors["transformer.norm.scale"] = np.zeros(31, np.float32)
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    params = tiny.make_state(TX, FLAMES).params
    with pytest.raises(ValueError) as error:
        import_weights(tmp_path, params)
    text = str(error.value)
    assert "missing: text_head.linear.kernel (32, 384)" in text
    assert "unknown: transformer.norm.bias (3,)" in text
    assert "shape: transformer.norm.scale is (31,) in the file, (32,) in the model" in text
    assert text.count("\n") == 3, "problems beside the three"
    with pytest.raises(FileNotFoundError, match=WEIGHTS_FILE):
        import_weights(tmp_path / "nowhere", params)


def test_partly_reads_the_children_of_the_file_only(weights, tmp_path, one_device):
    tensors = load_file(weights[0] / WEIGHTS_FILE)
    some = {
        n: x + 1 for n, x in tensors.items() if n.startswith(("image_head.", "text_embedding."))
    }
    save_file(some, tmp_path / WEIGHTS_FILE)
    params = tiny.make_state(TX, FLAMES).params
    with pytest.raises(ValueError, match="missing"):
        import_weights(tmp_path, params)
    got, children = import_weights(tmp_path, params, partly=True)
    assert children == ["image_head", "text_embedding"]
    tiny.same_bits(got, weights[1] | some)
    del some["image_head.fc1.bias"]
    save_file(some, tmp_path / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=r"missing: image_head\.fc1\.bias"):
        import_weights(tmp_path, params, partly=True)


# Other people's weights


@functools.partial(jax.jit, static_argnums=4)
def logits(model, tokens, positions, segments, head):
    side, none = model.config.understanding_encoder.image_size, np.zeros((1, 0), np.int32)
    batch = {
        "tokens": tokens,
        "understanding_images": np.zeros((1, 0, side, side, 3), np.float32),
        "positions": positions,
        "segment_ids": segments,
    }
    return getattr(model, head)(model(batch, none))


def test_loaded_weights_answer_as_transformers_does(original, hf, one_device):
    """Both layouts, float32: logits within 1e-4, and the greedy ids of its own generate()."""
    prompt = np.random.default_rng(0).integers(6, 300, (1, 12))
    with torch.no_grad():
        ids = foreign.model().generate(
            torch.from_numpy(prompt), max_new_tokens=6, do_sample=False, eos_token_id=-1
        )
        want = foreign.model()(input_ids=ids).logits.numpy()
    ids = ids.numpy().astype(np.int32)
    where = np.arange(ids.shape[1], dtype=np.int32)[None], np.ones_like(ids)
    model, _ = janus_jax.load(hf)
    got = np.asarray(logits(model, ids, *where, "text_head"))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
    assert got[0, 11:-1].argmax(-1).tolist() == ids[0, 12:].tolist()


def test_float16_is_not_a_compute_type(original):
    with pytest.raises(ValueError, match=r"float16.*65504"):
        janus_jax.load(original, dtype="float16")


def test_a_dtype_by_another_name_is_refused_with_the_choices(hf, one_device):
    with pytest.raises(ValueError, match=r"dtype 'bf16': must be one of float32, bfloat16, int8"):
        janus_jax.load(hf, dtype="bf16")


def test_a_mesh_splits_what_is_loaded(original):
    with on_mesh(1, 4, 2):
        model, _ = janus_jax.load(original, unrolled=False)
        kernel = model.transformer.blocks.gate.kernel[...]
        assert not kernel.is_fully_replicated
        assert np.array_equal(kernel, open_source(original).read("transformer.blocks.gate.kernel"))


def test_a_stage_starts_from_any_source(original, hf, one_device):
    shapes = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(foreign.config()))))
    got, children = import_weights(original, shapes, partly=True)
    assert children == sorted(tiny.CONFIG.children)
    assert got["text_head"]["linear"]["kernel"].dtype == np.float32
