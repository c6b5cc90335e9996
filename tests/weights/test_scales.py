"""Weights of a model that draws scale by scale: kept in this project's layout, and in no other."""

import dataclasses

import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.scales import CONFIG, processor

from janus_jax.eval.reconstruct import Reconstructor
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.training.vq_encoder import TokenizerEncoder
from janus_jax.weights import convert, parts
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.own import our_shapes
from janus_jax.weights.reader import flatten
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError
from janus_jax.weights.vq_parts import vq_sizes


def test_its_shapes_are_known_without_tracing_it(one_device):
    params = nnx.to_pure_dict(nnx.state(abstract(CONFIG)))
    assert our_shapes(CONFIG) == {name: x.shape for name, x in flatten(params).items()}


def test_other_programs_have_no_place_for_it(one_device, tmp_path):
    told = "\n".join(parts.ablated(CONFIG))
    assert "drawing is 'scales'" in told and "generation_encoder.scales is (1, 2, 4)" in told
    params = nnx.to_pure_dict(nnx.state(tiny.make_model(CONFIG)))
    export(tmp_path / "own", params, CONFIG, processor())
    with pytest.raises(ValueError, match="drawing is 'scales'"):
        convert.to_layout(open_source(tmp_path / "own"), tmp_path / "out", "deepseek")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_says_its_scales_and_other_ones_are_refused(one_device, tmp_path):
    params = nnx.to_pure_dict(nnx.state(tiny.make_model(CONFIG)))
    own = {"generation_encoder": params["generation_encoder"]}
    export(tmp_path, own, part_of=CONFIG)
    source = open_source(tmp_path).require()
    shapes = {name: shape for name, (shape, _) in source.leaves.items()}
    sizes = vq_sizes(shapes, source.unshaped)
    assert dataclasses.replace(sizes, image_size=16) == CONFIG.generation_encoder
    like = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(CONFIG))))
    read, children = import_weights(tmp_path, like, partly=True, config=CONFIG)
    assert list(children) == ["generation_encoder"]
    tiny.same_bits({"generation_encoder": read["generation_encoder"]}, own)
    for scales, says in (
        ((1, 3, 4), "scales is '1 2 4' there, '1 3 4' here"),
        ((), "scales is '1 2 4'"),
    ):
        vq = dataclasses.replace(CONFIG.generation_encoder, scales=scales)
        other = tiny.small(drawing="scales" if scales else "causal", generation_encoder=vq)
        like = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(other))))
        with pytest.raises(WeightsError, match=says):
            import_weights(tmp_path, like, partly=True, config=other)
    with pytest.raises(ValueError, match="a tokenizer of several scales gives other ids"):
        TokenizerEncoder(tmp_path, CONFIG.generation_encoder)


@pytest.mark.slow
def test_a_tokenizer_s_reconstructions_are_those_of_its_ids(one_device, tmp_path):
    model = tiny.make_model(CONFIG)
    params = nnx.to_pure_dict(nnx.state(model))
    export(tmp_path, {"generation_encoder": params["generation_encoder"]}, part_of=CONFIG)
    source = open_source(tmp_path).require()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    (found,) = Reconstructor(source, CONFIG.generation_encoder, None, 2)(pictures)
    ids = model.generation_encoder.encode(pictures / np.float32(127.5) - 1)
    assert (np.asarray(found["ids"])[:2] == ids).all()
    drawn = np.clip(127.5 * np.asarray(model.generation_encoder.decode(ids)) + 128, 0, 255)
    assert np.abs(np.asarray(found["pictures"], int)[:2] - drawn.astype(np.uint8)).max() <= 1
    other = dataclasses.replace(CONFIG.generation_encoder, image_size=32)
    with pytest.raises(ValueError, match=r"scales end in 4: give it pictures of 16"):
        Reconstructor(source, other, None, 2)
