"""Weights of tokens of several codes: kept in this project's layout, with their depth, and in no other."""

import dataclasses

import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.model.janus import abstract
from janus_jax.training.vq_encoder import TokenizerEncoder
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.own import our_shapes
from janus_jax.weights.reader import flatten
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError
from janus_jax.weights.vq_parts import vq_sizes

VQ = dataclasses.replace(
    tiny.CONFIG.generation_encoder, channels=4, multipliers=(1, 1, 1), norm_groups=2, depth=3,
    codebook_l2_norm=False,
)  # fmt: skip
CONFIG = tiny.small(generation_encoder=VQ, image_head="depth", image_head_layers=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(a whole model's directory, its tokenizer's, the numbers)."""
    directory = tmp_path_factory.mktemp("run") / "stage1"
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(CONFIG)))
        export(directory, params, CONFIG, tiny.processor())
        part = {"generation_encoder": params["generation_encoder"]}
        export(directory.with_name("stage0"), part, part_of=CONFIG)
    return directory, directory.with_name("stage0"), params


def test_load_gives_back_what_was_exported(weights, one_device):
    model, _ = janus_jax.load(weights[0], unrolled=False)
    assert model.config == CONFIG
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), weights[2])


def test_its_shapes_are_known_without_tracing_it(one_device):
    params = nnx.to_pure_dict(nnx.state(abstract(CONFIG)))
    assert our_shapes(CONFIG) == {name: x.shape for name, x in flatten(params).items()}


def test_a_tokenizer_says_its_depth_which_no_shape_tells(weights, one_device):
    source = open_source(weights[1]).require()
    shapes = {name: shape for name, (shape, _) in source.leaves.items()}
    assert dataclasses.replace(vq_sizes(shapes, source.unshaped), image_size=16) == VQ
    other = dataclasses.replace(VQ, depth=1)
    with pytest.raises(ValueError, match="depth is 3 there, 1 here"):
        TokenizerEncoder(weights[1], other)
    with pytest.raises(ValueError, match="depth is 3: ids are stored one a token; train from"):
        TokenizerEncoder(weights[1], VQ)
    with pytest.raises(WeightsError, match="depth is 3 there, 1 here"):
        params = {"generation_encoder": weights[2]["generation_encoder"]}
        config = tiny.small(generation_encoder=other)
        import_weights(weights[1], params, partly=True, config=config, say=print)


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
def test_other_programs_layouts_are_refused_by_name(weights, layout, tmp_path):
    with pytest.raises(ValueError, match=r"image_head is 'depth'(.|\n)*depth is 3"):
        convert.to_layout(open_source(weights[0]), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()
