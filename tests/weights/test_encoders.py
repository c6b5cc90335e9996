"""Weights of Janus with another understanding encoder: kept in this project's layout, and in no
other; SigLIP's say what they always said."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh
from support.outputs import pictures, run

import janus_jax
from janus_jax.model import config as sizes
from janus_jax.weights import convert, differences
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.own import our_shapes
from janus_jax.weights.reader import flatten
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError, unshaped

VARIANT = ("class_token", "pre_norm", "no_patch_bias", "no_final_norm", "layer_scale", "sub_norm")
ENCODER = sizes.UnderstandingEncoderConfig(
    image_size=16, patch_size=4, width=32, mlp_width=64, layers=3, heads=8, feature_layer=-2,
    activation="swiglu", norm_eps=1e-5, pixels="clip", rotary_grid=2, variant=VARIANT,
)  # fmt: skip
CONFIG = tiny.small(understanding_encoder=ENCODER)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(directory of a whole Janus, of its encoder alone, its leaves)."""
    directory = tmp_path_factory.mktemp("run")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(CONFIG)))
        export(directory / "whole", params, CONFIG, tiny.processor())
        part = {differences.ENCODER: params[differences.ENCODER]}
        export(directory / "part", part, part_of=CONFIG)
    return directory / "whole", directory / "part", params


def test_load_gives_back_what_was_exported(weights, one_device):
    model, _ = janus_jax.load(weights[0], unrolled=False)
    assert model.config == CONFIG
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), tiny.numbers(weights[2]))


def test_the_form_that_draws_sees_the_same(weights, one_device):
    images = pictures(0, 2, 16, 16)
    see = lambda m, x: m.embed_images(x)
    stacked, served = (janus_jax.load(weights[0], unrolled=x)[0] for x in (False, True))
    assert len(served.understanding_encoder.blocks) == ENCODER.depth == 2
    got, want = (run(see, model, images) for model in (served, stacked))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


def test_its_shapes_are_known_without_tracing_it(weights):
    assert our_shapes(CONFIG) == {name: x.shape for name, x in flatten(weights[2]).items()}


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
def test_other_programs_layouts_are_refused_by_name(weights, layout, tmp_path):
    with pytest.raises(ValueError, match=r"activation is 'swiglu'(.|\n)*variant is"):
        convert.to_layout(open_source(weights[0]), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_it_is_not_written_as_siglip(weights, tmp_path):
    with pytest.raises(ValueError, match=r"activation is 'swiglu'"):
        convert.to_layout(open_source(weights[1]), tmp_path / "out", "siglip")
    assert not (tmp_path / "out").exists()


def test_a_stage_takes_the_encoder_alone_and_refuses_another_of_its_shapes(weights, one_device):
    params = jax.tree.map(jax.numpy.zeros_like, weights[2])
    got, held = import_weights(weights[1], params, partly=True, config=CONFIG)
    assert held == [differences.ENCODER]
    tiny.same_bits(got[differences.ENCODER], tiny.numbers(weights[2][differences.ENCODER]))
    told = json.loads((weights[1] / "manifest.json").read_text())["unshaped"]
    assert told["understanding_encoder.pixels"] == "clip"
    siglip = sizes.UnderstandingEncoderConfig()
    for field, there in (("pixels", "clip"), ("norm_eps", 1e-5), ("rotary_grid", 2)):
        other = tiny.small(
            understanding_encoder=dataclasses.replace(ENCODER, **{field: getattr(siglip, field)})
        )
        with pytest.raises(WeightsError, match=f"{field} is {there!r} there"):
            import_weights(weights[1], params, partly=True, config=other)


def test_siglips_config_and_sizes_are_written_as_they_always_were():
    written = differences.written_config(sizes.JanusConfig())
    assert list(written[differences.ENCODER]) == [
        "image_size", "patch_size", "width", "mlp_width", "layers", "heads",
    ]  # fmt: skip
    ours = differences.written_config(CONFIG)[differences.ENCODER]
    assert set(ours) == set(vars(ENCODER)) - sizes.LEFT_OUT[differences.ENCODER].keys()
    siglips = differences.written_unshaped(unshaped(sizes.JanusConfig()))
    assert [key for key in siglips if key.startswith(differences.ENCODER)] == [
        "understanding_encoder.heads", "understanding_encoder.image_size",
    ]  # fmt: skip
