"""diffusers' AutoencoderKL: its numbers, its files in and out, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.torch import load_file
from support import klmodel, tiny
from support.outputs import error, nchw, nhwc, pictures, run

from janus_jax.model import sharding as sh
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.keys import Keys
from janus_jax.model.kl_tokenizer import KlTokenizer
from janus_jax.weights import convert
from janus_jax.weights.load import import_weights, placed
from janus_jax.weights.reader import other_sizes
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError
from janus_jax.weights.vq_parts import vq_sizes

KL = GenerationEncoderConfig(
    image_size=16, channels=16, multipliers=(1, 2, 2), res_blocks=2, z_channels=4, norm_groups=8,
    code_dim=4, latent="kl", latent_scale=0.25,
)  # fmt: skip
TOLERANCE = 2e-5  # largest difference in float32, in standard deviations
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def sizes(source) -> GenerationEncoderConfig:
    return vq_sizes({name: shape for name, (shape, _) in source.leaves.items()}, source.unshaped)


def tokenizer(source, config=KL) -> KlTokenizer:
    graphdef, state = nnx.split(
        jax.eval_shape(lambda: KlTokenizer(config, Keys(jax.random.key(0))))
    )
    shapes = sh.concrete(nnx.to_pure_dict(state))
    return nnx.merge(graphdef, placed(source, shapes, "generation_encoder."))


@pytest.mark.parametrize("channels", [4, 16])
def test_moments_and_pixels_are_diffusers(tmp_path, channels, one_device):
    config = dataclasses.replace(KL, z_channels=channels, code_dim=channels)
    theirs = klmodel.build(config)
    source = open_source(klmodel.save(tmp_path / "vae", config, theirs)).require()
    assert source.kind == "diffusers_kl" and source.config is None
    assert dataclasses.replace(sizes(source), image_size=16) == config
    ours = tokenizer(source, config)
    images = pictures(6, 2, 16, 24)
    want = theirs.moments(nchw(images))
    for i in range(2):
        assert (
            error(run(lambda m, x, i=i: m.moments(x)[i], ours, images), nhwc(want[i])) < TOLERANCE
        )
    latents = run(lambda m, x: m.encode(x), ours, images)
    assert error(latents, 0.25 * nhwc(want[0]).reshape(2, -1, channels)) < TOLERANCE
    got = run(lambda m, z: m.decode(z, (4, 6)), ours, latents)
    assert error(got, nhwc(theirs.decode(want[0]))) < 1e-4


def test_attention_by_its_old_names_is_the_same(tmp_path, one_device):
    def rename(name):
        for new, old in OLD.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        return name

    theirs = klmodel.build(KL)
    new = open_source(klmodel.save(tmp_path / "new", KL, theirs)).require()
    old = open_source(klmodel.save(tmp_path / "old", KL, theirs, rename)).require()
    for name in new.leaves:
        np.testing.assert_array_equal(new.read(name, None), old.read(name, None))


def test_there_and_back_it_is_the_same_files(tmp_path):
    theirs = klmodel.save(tmp_path / "vae", KL)
    convert.to_layout(open_source(theirs), tmp_path / "ours", "janus_jax")
    ours = open_source(tmp_path / "ours").require()
    assert sizes(ours) == sizes(open_source(theirs))
    convert.to_layout(ours, tmp_path / "back", "diffusers_kl")
    files = [
        load_file(x / "diffusion_pytorch_model.safetensors") for x in (theirs, tmp_path / "back")
    ]
    assert files[0].keys() == files[1].keys()
    assert all((files[0][name] == files[1][name]).all() for name in files[0])
    values = [json.loads((x / "config.json").read_text()) for x in (theirs, tmp_path / "back")]
    assert {k: x for k, x in values[0].items() if k in values[1]} == values[1]
    with pytest.raises(ValueError, match="holds no VQ tokenizer"):
        convert.to_layout(ours, tmp_path / "other", "llamagen_vq")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"use_quant_conv": False}, r"use_quant_conv is False; this model can only be True"),
        ({"shift_factor": 0.06}, r"shift_factor is 0.06; .* not shifted"),
        ({"mid_block_add_attention": False}, "mid_block_add_attention is False"),
        ({"down_block_types": ["AttnDownEncoderBlock2D"] * 3}, "DownEncoderBlock2D at each of 3"),
        ({"block_out_channels": [16, 24]}, "each a multiple of the first"),
        ({"scaling_factor": 0}, "scaling_factor is 0: must be a finite number in float32, above 0"),
    ],
)
def test_what_this_network_is_not_is_refused(tmp_path, values, says):
    with pytest.raises(WeightsError, match=says):
        open_source(klmodel.save(tmp_path / "vae", KL, **values))


def test_weights_of_the_other_kind_and_scale_are_named(tmp_path, one_device):
    source = open_source(klmodel.save(tmp_path / "vae", KL))
    config = tiny.small(generation_encoder=dataclasses.replace(KL, latent_scale=1.0))
    (problem,) = other_sizes(source, config)
    assert problem == "generation_encoder.latent_scale is 0.25 there, 1.0 here"
    state = sh.concrete(nnx.to_pure_dict(nnx.split(tiny.abstract(tiny.CONFIG))[1]))
    with pytest.raises(WeightsError, match=r"generation_encoder\.latent is kl there, vq here"):
        import_weights(tmp_path / "vae", state, partly=True)
