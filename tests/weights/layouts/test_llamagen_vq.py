"""LlamaGen's tokenizer alone."""

import argparse
import dataclasses
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from support import foreign
from support.foreign import shapes

from janus_jax.model import presets
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.source import open_source
from janus_jax.weights.vq_parts import vq_sizes


def llamagen(place: str) -> dict:
    prefix = "gen_vision_model."
    weights = {
        k.removeprefix(prefix): x
        for k, x in foreign.original_tensors().items()
        if k.startswith(prefix)
    }
    zeros = {k: torch.zeros_like(x) for k, x in weights.items()}
    training = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "discriminator": zeros, "steps": 7,
                "args": argparse.Namespace(lr=1e-4, name="VQ-16")}  # fmt: skip
    return training | ({"ema": weights, "model": zeros} if place == "ema" else {"model": weights})


@pytest.mark.parametrize("place", ["model", "ema"])
def test_llamagens_tokenizer(tmp_path, place, one_device):
    torch.save(llamagen(place), tmp_path / "vq_ds16_c2i.pt")
    source = open_source(tmp_path / "vq_ds16_c2i.pt", allow_pickle=True).require()
    assert source.kind == "llamagen_vq"
    assert {
        "optimizer",
        "discriminator",
        "args",
        "steps",
        "quantize.codebook_used",
    } <= source.ignored.keys()
    hf = foreign.save_transformers(tmp_path / "hf")
    whole = open_source(hf)
    for name, (shape, dtype) in source.leaves.items():
        assert whole.leaves[name] == (shape, dtype)
        assert np.array_equal(source.read(name), whole.read(name)), name
    convert.to_layout(source, tmp_path / "vq", "janus_jax")
    params, children = import_weights(tmp_path / "vq", shapes(), partly=True)
    assert children == ["generation_encoder"]
    codebook = params["generation_encoder"]["codebook"]
    assert np.array_equal(
        codebook, foreign.original_tensors()["gen_vision_model.quantize.embedding.weight"]
    )
    with pytest.raises(
        ValueError, match=r"a part \(llamagen_vq\), no whole Janus; .* llamagen_vq, .* siglip"
    ):
        convert.to_layout(source, tmp_path / "no", "deepseek")


def tensors_of(path) -> dict:
    return torch.load(path, weights_only=True)["model"]


def test_llamagens_file_comes_back_bit_for_bit(tmp_path):
    torch.save(llamagen("model"), tmp_path / "theirs.pt")
    theirs = open_source(tmp_path / "theirs.pt", allow_pickle=True)
    convert.to_layout(theirs, tmp_path / "ours", "janus_jax")
    ours = open_source(tmp_path / "ours")
    assert ours.unshaped == {"generation_encoder.norm_groups": 32}
    convert.to_layout(ours, tmp_path / "back", "llamagen_vq")
    want = llamagen("model")["model"]
    got = tensors_of(tmp_path / "back" / "vq.pt")
    assert got.keys() == want.keys()
    for name, x in want.items():
        assert got[name].dtype == x.dtype and torch.equal(got[name], x), name
    again = open_source(tmp_path / "back", allow_pickle=True)
    convert.to_layout(again, tmp_path / "again", "janus_jax")
    for name in ("model.safetensors", "kept.safetensors", "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()


def test_a_tokenizer_of_ours_and_that_of_a_whole_model_become_llamagens(tmp_path, hf, part):
    """With the buffer that its module asks for, which ours never had."""
    for name, weights in (("a", part), ("b", hf)):
        convert.to_layout(open_source(weights), tmp_path / name, "llamagen_vq")
    assert (tmp_path / "a/vq.pt").read_bytes() == (tmp_path / "b/vq.pt").read_bytes()
    got = tensors_of(tmp_path / "a" / "vq.pt")
    want = llamagen("model")["model"]
    assert torch.equal(got.pop("quantize.codebook_used"), torch.zeros(65536))
    assert got.keys() == want.keys() - {"quantize.codebook_used"}
    assert all(torch.equal(x, want[name]) for name, x in got.items())


@pytest.fixture
def part(tmp_path):
    """A tokenizer as our own training leaves it."""
    torch.save(llamagen("model"), tmp_path / "theirs.pt")
    source = open_source(tmp_path / "theirs.pt", allow_pickle=True)
    convert.to_layout(source, tmp_path / "part", "janus_jax")
    (tmp_path / "part" / "kept.safetensors").unlink()
    return tmp_path / "part"


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"generation_encoder.norm_groups": 8}, "norm_groups is 8, and LlamaGen's code always takes 32"),
        ({}, r"does not say its norm_groups.*manifest\.json"),
        ({"generation_encoder.norm_groups": "8"}, "norm_groups is '8': must be a number"),
        ({"codes": 8}, "codes is 8: must be a number, for one of transformer.heads"),
    ],
)  # fmt: skip
def test_a_tokenizer_that_llamagen_would_compute_otherwise_is_refused(tmp_path, part, groups, says):
    manifest = json.loads((part / "manifest.json").read_text())
    (part / "manifest.json").write_text(json.dumps(manifest | {"unshaped": groups}))
    with pytest.raises(ValueError, match=f"part[:/].*{says}"):
        convert.to_layout(open_source(part), tmp_path / "out", "llamagen_vq")
    assert not (tmp_path / "out").exists()


def test_weights_without_a_tokenizer_are_no_llamagen(tmp_path, siglip):
    siglip.save_pretrained(tmp_path / "siglip")
    source = open_source(tmp_path / "siglip")
    with pytest.raises(ValueError, match=r"siglip: holds no VQ tokenizer \(gen.*give what a stage"):
        convert.to_layout(source, tmp_path / "out", "llamagen_vq")


def test_vq_8_is_read_by_its_levels(tmp_path):
    """LlamaGen's VQ-8 has one level fewer and wider ones; names and sizes follow from the levels."""
    config = transformers.JanusVQVAEConfig(
        embed_dim=8, num_embeddings=64, latent_channels=16, base_channels=32, num_res_blocks=2,
        channel_multiplier=[1, 2, 2, 4], projection_dim=8, image_token_embed_dim=8, num_patches=2,
    )  # fmt: skip
    theirs = transformers.JanusVQVAE(config)
    prefix = "model.vqmodel."
    rules = [rule for rule in foreign.RENAMED if "vqmodel" in rule[0]]
    renamed = {}
    for name, x in theirs.state_dict().items():
        new = next(re.sub(a, b, prefix + name) for a, b in rules if re.search(a, prefix + name))
        renamed[new.removeprefix("gen_vision_model.")] = x
    torch.save({"model": renamed}, tmp_path / "vq_ds8_c2i.pt")
    source = open_source(tmp_path / "vq_ds8_c2i.pt", allow_pickle=True).require()
    shapes = {name: shape for name, (shape, _) in source.leaves.items()}
    vq_8 = presets.vq_8()
    assert vq_sizes(shapes, source.unshaped) == dataclasses.replace(
        vq_8, channels=32, z_channels=16, codebook_size=64
    )
    assert {name.split(".")[3] for name in shapes if ".encoder.levels." in name} == set("0123")


def test_an_exported_part_keeps_the_sizes_that_no_shape_tells(tmp_path, one_device):
    part = {"generation_encoder": {"codebook": jnp.zeros((4, 2))}}
    for name, model in (("with", foreign.config()), ("without", None)):
        export(tmp_path / name, part, part_of=model)
    assert open_source(tmp_path / "with").unshaped == {"generation_encoder.norm_groups": 32}
    assert open_source(tmp_path / "without").unshaped == {}
