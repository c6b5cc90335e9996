"""Weights that a stage cannot begin with, each by what is printed."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import configs, foreign, tiny, toy
from support.mesh import on_mesh

import janus_jax
from janus_jax.common import exit_codes
from janus_jax.config.schema import ConfigError
from janus_jax.data.tokenizer import Tokenizer, train
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.source import open_source
from janus_jax.weights.table import NoWeightsError, WeightsError

KERNEL = "transformer.blocks.gate.kernel"


@pytest.fixture(scope="module")
def params():
    with on_mesh():
        return tiny.make_state(toy.TX).params


@pytest.fixture
def weights(params, tmp_path, one_device):
    """A weights directory."""
    export(tmp_path / "stage2", params, tiny.CONFIG, tiny.processor())
    return tmp_path / "stage2"


def edited(weights, change):
    """The directory with `change(tensors)` made in its file, as by another program: without
    checksums."""
    tensors = load_file(weights / "model.safetensors")
    change(tensors)
    save_file(tensors, weights / "model.safetensors")
    (weights / "manifest.json").unlink()
    return weights


def refused(weights, params, **how) -> str:
    """What a stage that begins with these weights says; the run ends with 2."""
    with pytest.raises(WeightsError) as error:
        import_weights(weights, params, partly=True, config=tiny.CONFIG, **how)
    assert exit_codes.of_error(error.value) == 2
    return str(error.value)


def test_another_tokenizer_than_the_weights_had_is_refused_with_what_differs(weights, params):
    ours = tiny.processor().tokenizer
    import_weights(weights, params, config=tiny.CONFIG, tokenizer=ours)
    other = train(["entirely other words"], tiny.CONFIG.transformer.vocabulary)
    text = refused(weights, params, tokenizer=other)
    assert re.search(
        rf"{weights} was trained with another tokenizer than this run's: \d+ tokens have other ids or none \('",
        text,
    )
    assert "Give the run theirs (the config's `tokenizer`" in text
    values = json.loads(ours.backend.to_str())
    values["model"]["merges"].reverse()
    merges = Tokenizer(type(ours.backend).from_str(json.dumps(values)))
    assert "words fall into other tokens (other merges)" in refused(
        weights, params, tokenizer=merges
    )


def test_weights_without_a_tokenizer_beside_them_are_told(weights, params):
    (weights / "processor.json").unlink()
    (weights / "tokenizer.json").unlink()
    said = []
    import_weights(
        weights, params, config=tiny.CONFIG, tokenizer=tiny.processor().tokenizer, say=said.append
    )
    assert len(said) == 1 and f"{weights}: its tokenizer is not compared with this run's" in said[0]


def test_numbers_that_are_not_finite_are_named(weights, params):
    def poison(tensors):
        tensors[KERNEL][1, 2, 3] = np.nan
        tensors["image_head.fc1.bias"][:2] = np.inf

    text = refused(edited(weights, poison), params)
    assert f"{weights}: damaged weights:" in text
    assert f"not finite: {KERNEL}, layer 1 holds 1 infinite or undefined numbers" in text
    assert "not finite: image_head.fc1.bias holds 2 infinite" in text


def test_weights_of_another_model_name_the_fields(weights, params):
    other = tiny.small(image_head_width=16)
    small = {"image_head": jax.tree.map(lambda x: x, params["image_head"])}
    small["image_head"]["fc1"] = {
        "kernel": params["image_head"]["fc1"]["kernel"][:, :16],
        "bias": np.zeros(16),
    }
    with pytest.raises(
        WeightsError,
        match=r"does not fit this model \(another config\?\):\n  image_head_width is 32 ",
    ):
        import_weights(weights, params | small, config=other)


def test_unknown_tensors_say_how_to_skip_them(tmp_path, params):
    source = foreign.save_original(
        tmp_path, tensors=foreign.original_tensors() | {"lora.A": foreign.torch.zeros(2)}
    )
    assert "unknown: lora.A (2,) (--allow_extra skips such tensors)" in " ".join(
        open_source(source).problems()
    )


@pytest.mark.parametrize("dtype, says", [
    ("float16", "is float16; float32 or bfloat16 is due (dtype=float32 casts it; for a stage's init do so once, by"),
    ("float64", "is float64; float32 or bfloat16 is due"),
    ("int8", "is int8; a float type is due"),
])  # fmt: skip
def test_no_type_is_cast_in_silence(dtype, says, weights, params, tmp_path):
    def cast(tensors):
        tensors[KERNEL] = tensors[KERNEL].astype(dtype)

    edited(weights, cast)
    assert f"type: {KERNEL} {says}" in refused(weights, params)
    if dtype == "int8":  # whoever asks: integers are no weights
        with pytest.raises(WeightsError, match="a float type is due"):
            janus_jax.load(weights, "float32")
        return
    convert.to_layout(open_source(weights), tmp_path / "once", "janus_jax", "float32")
    tree, _ = import_weights(tmp_path / "once", params, config=tiny.CONFIG)
    assert tree["transformer"]["blocks"]["gate"]["kernel"].dtype == np.float32


def test_bfloat16_widens_to_the_same_numbers(weights, params, tmp_path):
    convert.to_layout(open_source(weights), tmp_path / "half", "janus_jax", "bfloat16")
    tree, _ = import_weights(tmp_path / "half", params, config=tiny.CONFIG)
    got, want = (tiny.numbers(x)[KERNEL] for x in (tree, params))
    assert got.dtype == np.float32 and np.array_equal(
        got, want.astype(jnp.bfloat16).astype(np.float32)
    )


@pytest.mark.parametrize("content, says", [
    (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer, not the file: run `git lfs pull`"),
    (b"<!DOCTYPE html><html>", "a web page, not weights; download the file itself"),
    (None, "no weights directory"),
])  # fmt: skip
def test_a_stages_init_is_looked_at_before_anything_compiles(weights, content, says):
    file = weights / "model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        configs.checked({"stages.stage2.init": f"['{weights}']"}, devices=1, files=True)
    assert exit_codes.of_error(error.value) == 2
    assert f"stages.stage2.init: {weights}" in str(error.value) and says in str(error.value)


def test_what_is_wrong_with_weights_ends_a_run_with_2(weights):
    assert [exit_codes.of_error(kind("x")) for kind in (WeightsError, NoWeightsError)] == [2, 2]
    with pytest.raises(FileNotFoundError):
        open_source(weights / "nowhere")
