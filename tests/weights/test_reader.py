"""A part of other sizes than the model's is refused with the fields."""

import dataclasses

import pytest
from flax import nnx
from support import foreign, tiny
from support.foreign import shapes

from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.weights.load import import_weights


def test_a_part_of_other_sizes_names_the_fields(siglip, tmp_path, one_device):
    siglip.save_pretrained(tmp_path)
    params = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(tiny.CONFIG))))
    with pytest.raises(ValueError, match=r"understanding_encoder\.patch_size is 8 there, 4 here"):
        import_weights(tmp_path, params, partly=True)


def test_sizes_that_no_shape_tells_are_compared_with_the_models(siglip, tmp_path, one_device):
    siglip.save_pretrained(tmp_path / "tower")
    config = foreign.config()
    import_weights(tmp_path / "tower", shapes(), partly=True, config=config)
    other = dataclasses.replace(
        config,
        understanding_encoder=dataclasses.replace(config.understanding_encoder, heads=8),
        transformer=dataclasses.replace(config.transformer, rope_theta=5e5),
    )
    with pytest.raises(ValueError, match=r"understanding_encoder\.heads is 4 there, 8 here"):
        import_weights(tmp_path / "tower", shapes(), partly=True, config=other)
    whole = foreign.save_transformers(tmp_path / "hf")
    with pytest.raises(ValueError, match=r"rope_theta is 10000\.0 there, 500000\.0 here"):
        import_weights(whole, shapes(), config=other)
