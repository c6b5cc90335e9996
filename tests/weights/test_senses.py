"""Weights of models with further senses: kept in this project's layout, and in no other."""

import dataclasses

import pytest
from flax import nnx
from support import sensing, tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.model.janus import abstract
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "solids"
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(sensing.CONFIG)))
        export(directory, params, sensing.CONFIG, tiny.processor())
    return directory, tiny.numbers(params)


def test_load_gives_back_what_was_exported(weights, one_device):
    directory, params = weights
    model, _ = janus_jax.load(directory, unrolled=False)
    assert model.config == sensing.CONFIG
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), params)


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
def test_other_programs_layouts_are_refused_by_name(weights, layout, tmp_path):
    with pytest.raises(ValueError, match=r"senses is \{'points'.*this project's layout"):
        convert.to_layout(open_source(weights[0]), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_a_sense_of_other_sizes_that_no_shape_tells_is_refused(weights, one_device):
    other = dataclasses.replace(sensing.CONFIG, senses={"points": sensing.POINTS | {"heads": 2}})
    wanted = nnx.to_pure_dict(nnx.state(abstract(other)))
    with pytest.raises(WeightsError, match=r"senses\.points\.heads is 4 there, 2 here"):
        import_weights(weights[0], wanted, config=other)


def test_a_trained_janus_without_the_sense_is_taken_and_given_it(tmp_path, one_device):
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model()))
        export(tmp_path / "janus", params, tiny.CONFIG, tiny.processor())
        wanted = nnx.to_pure_dict(nnx.state(tiny.make_model(sensing.CONFIG, seed=1)))
        tree, held = import_weights(tmp_path / "janus", wanted, partly=True, config=sensing.CONFIG)
    assert sorted(held) == sorted(tiny.CONFIG.children)
    tiny.same_bits({child: tree[child] for child in held}, params)
    tiny.same_bits(tree["points_encoder"], wanted["points_encoder"])
