"""From layout to layout and back, byte for byte."""

import dataclasses
import importlib

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from support import foreign
from support.foreign import convert
from support.mesh import on_mesh
from support.paths import TESTS

from janus_jax.weights import __main__ as command
from janus_jax.weights.load import export
from janus_jax.weights.source import open_source


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_original_layout_comes_back_byte_for_byte(dtype, tmp_path):
    source = foreign.save_original(tmp_path / "theirs", dtype)
    ours = convert(source, tmp_path / "ours", "janus_jax")
    back = convert(ours, tmp_path / "back", "deepseek")
    foreign.same_tensors(source, back)
    foreign.same_tensors(source, convert(source, tmp_path / "straight", "deepseek"))
    assert open_source(ours).config == open_source(source).config
    assert (
        dataclasses.replace(open_source(back).config, dtype="bfloat16") == open_source(ours).config
    )
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_transformers_layout_comes_back_byte_for_byte(dtype, tmp_path):
    source = foreign.save_transformers(tmp_path / "theirs", dtype)
    ours = convert(source, tmp_path / "ours", "janus_jax")
    foreign.same_tensors(source, convert(ours, tmp_path / "back", "transformers"))
    through = convert(convert(source, tmp_path / "a", "deepseek"), tmp_path / "b", "transformers")
    foreign.same_tensors(source, through)


def test_shards_are_read_and_written(hf, tmp_path, monkeypatch):
    foreign.model().save_pretrained(tmp_path / "theirs", max_shard_size="300KB")
    foreign.tokenizer().save(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    monkeypatch.setattr("janus_jax.weights.convert.SHARD_BYTES", 300_000)
    back = convert(tmp_path / "theirs", tmp_path / "back", "transformers")
    assert len(list(back.glob("*.safetensors"))) > 2
    foreign.same_tensors(hf, back)
    assert transformers.JanusForConditionalGeneration.from_pretrained(back) is not None


def test_a_dtype_that_was_asked_for(hf, tmp_path):
    source = open_source(convert(hf, tmp_path / "ours", "janus_jax", "bfloat16"))
    vq = {str(d) for n, (_, d) in source.leaves.items() if n.startswith("generation_encoder.")}
    rest = {
        str(d) for n, (_, d) in source.leaves.items() if not n.startswith("generation_encoder.")
    }
    assert (vq, rest, source.config.dtype) == ({"float32"}, {"bfloat16"}, "bfloat16")
    want = open_source(hf).read("transformer.blocks.gate.kernel").astype("bfloat16")
    assert np.array_equal(source.read("transformer.blocks.gate.kernel"), want)


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
def test_the_benchmarks_checkpoints_balance(tmp_path, layout, monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS.parent / "benchmarks"))
    make_checkpoint = importlib.import_module("make_checkpoint")
    monkeypatch.setattr(make_checkpoint, "POOL", 9973)
    monkeypatch.setattr(make_checkpoint, "PIECE", 5000)
    make_checkpoint.make(foreign.config(), layout, tmp_path / "random", pro=True, vocabulary=300)
    source = open_source(tmp_path / "random").require()
    assert source.kind == layout and len(source.kept) == (14 if layout == "deepseek" else 0)
    assert {str(dtype) for _, dtype in source.leaves.values()} == {"bfloat16"}
    back = convert(
        convert(tmp_path / "random", tmp_path / "ours", "janus_jax"), tmp_path / "back", layout
    )
    foreign.same_tensors(tmp_path / "random", back)
    benchmark = importlib.import_module("convert")
    benchmark.same(tmp_path / "random", back)
    if layout == "transformers":
        with on_mesh():
            assert benchmark.our_ids(tmp_path / "ours") == benchmark.their_ids(tmp_path / "random")


def told(capsys, source, target, layout: str, code: int = 0) -> str:
    assert command.main([f"--source={source}", f"--target={target}", f"--format={layout}"]) == code
    return capsys.readouterr().out


def test_what_a_part_of_a_model_leaves_behind_is_told_once_it_is_written(hf, tmp_path, capsys):
    said = told(capsys, hf, tmp_path / "tower", "siglip")
    (left,) = [line for line in said.splitlines() if "left behind" in line]
    assert "transformer" in left and "generation_encoder" in left
    assert "understanding_encoder" not in left
    said = told(capsys, hf, tmp_path / "vq", "llamagen_vq")
    (left,) = [line for line in said.splitlines() if "left behind" in line]
    assert "understanding_encoder" in left and "generation_encoder" not in left
    assert "left behind" not in told(capsys, hf, tmp_path / "ours", "janus_jax")
    # Nothing is left behind where nothing is written.
    assert "left behind" not in told(capsys, tmp_path / "tower", tmp_path / "no", "llamagen_vq", 2)


def test_a_part_without_sizes_that_are_known_is_told_without_an_empty_line(tmp_path, capsys):
    export(tmp_path / "part", {"detector": {"kernel": jnp.zeros((2, 3))}})
    said = told(capsys, tmp_path / "part", tmp_path / "out", "janus_jax")
    assert "1 leaves" in said and all(line.strip() for line in said.splitlines())
