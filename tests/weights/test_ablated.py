"""Weights of the ablations' models (Table 5): kept in this project's layout, and in no other."""

import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.model import config as sizes
from janus_jax.model.janus import abstract
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.own import our_shapes
from janus_jax.weights.reader import flatten
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError

SEMANTIC = sizes.SemanticDecoderConfig(width=16, mlp_width=32, layers=2, heads=2)
CONFIG = tiny.small(understanding="semantic", generation="semantic", semantic_decoder=SEMANTIC)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "stage3"
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(CONFIG)))
        export(directory, params, CONFIG, tiny.processor())
    return directory, tiny.numbers(params)


def test_load_gives_back_what_was_exported(weights, one_device):
    directory, params = weights
    model, _ = janus_jax.load(directory, unrolled=False)
    assert model.config == CONFIG
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), params)


def test_the_form_that_draws_has_the_decoders_layers_apart(weights, one_device):
    directory, params = weights
    model, _ = janus_jax.load(directory)
    assert len(model.semantic_decoder.blocks) == SEMANTIC.layers
    kernel = model.semantic_decoder.blocks[1].mlp.fc1.kernel[...]
    wanted = params["semantic_decoder.blocks.mlp.fc1.kernel"][1]
    assert wanted.shape in (kernel.shape, kernel.shape[::-1])
    assert np.sort(np.ravel(kernel)).tolist() == np.sort(np.ravel(wanted)).tolist()


def test_its_shapes_are_known_without_tracing_it(one_device):
    params = nnx.to_pure_dict(nnx.state(abstract(CONFIG)))
    assert our_shapes(CONFIG) == {name: x.shape for name, x in flatten(params).items()}


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
def test_other_programs_layouts_are_refused_by_name(weights, layout, tmp_path):
    with pytest.raises(ValueError, match=r"understanding is 'semantic'(.|\n)*generation is"):
        convert.to_layout(open_source(weights[0]), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_a_semantic_decoder_of_other_heads_is_refused(weights, one_device):
    directory, _ = weights
    other = tiny.small(
        understanding="semantic",
        generation="semantic",
        semantic_decoder=sizes.SemanticDecoderConfig(width=16, mlp_width=32, layers=2, heads=4),
    )
    wanted = nnx.to_pure_dict(nnx.state(abstract(other)))
    with pytest.raises(WeightsError, match=r"semantic_decoder\.heads is 2 there, 4 here"):
        import_weights(directory, wanted, config=other)
