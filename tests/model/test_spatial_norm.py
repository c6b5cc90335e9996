"""MoVQ's decoder is LlamaGen's where its norms are plain, and LlamaGen's is as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.outputs import integers, pictures, run

from janus_jax.checkpoint.history import plain_values
from janus_jax.config.read import resolve
from janus_jax.model.config import GenerationEncoderConfig, JanusConfig, to_dict
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.keys import Keys

GROUP = tiny.CONFIG.generation_encoder
SPATIAL = dataclasses.replace(GROUP, decoder_norm="spatial")
FREE = dataclasses.replace(GROUP, codebook_l2_norm=False)
BEFORE = (
    5176.07276  # the sum of absolute values that seed 0 drew before there was a choice of norms
)


def drawn(config: GenerationEncoderConfig) -> GenerationEncoder:
    return GenerationEncoder(config, Keys(jax.random.key(0)))


def leaves(module) -> dict:
    return {".".join(map(str, path)): x for path, x in nnx.to_flat_state(nnx.state(module))}


def test_with_a_gain_of_1_and_no_shift_a_spatial_norm_is_a_group_norm(one_device):
    plain, spatial = drawn(GROUP), drawn(SPATIAL)
    found, wanted = leaves(spatial), leaves(plain)
    for name, leaf in found.items():
        if name in wanted:
            leaf.set_value(wanted[name][...])
        else:
            ones = name.endswith("gamma.bias")
            leaf.set_value(jnp.full_like(leaf[...], 1.0 if ones else 0.0))
    assert wanted.keys() < found.keys()
    ids = integers(1, GROUP.codebook_size, 2, 16)
    decode = lambda m, ids: m.decode(ids, (4, 4))
    np.testing.assert_array_equal(run(decode, spatial, ids), run(decode, plain, ids))


def test_spatial_norms_stand_in_the_decoder_alone(one_device):
    more = leaves(drawn(SPATIAL)).keys() - leaves(drawn(GROUP)).keys()
    norms = {name.rsplit(".", 2)[0] for name in more}
    assert all(name.startswith("decoder.") for name in norms)
    # Of the middle 5; of the three levels 2 x 2 each; of the first's attention 2; the last one.
    assert len(norms) == 5 + 12 + 2 + 1 and len(more) == 4 * len(norms)


def test_a_model_without_the_new_fields_is_the_model_of_before(one_device):
    """The weights that a seed draws, and what is written of the sizes."""
    total = sum(float(jnp.abs(x[...]).sum()) for x in leaves(drawn(GROUP)).values())
    assert total == pytest.approx(BEFORE, rel=1e-6)
    fields = (
        "image_size channels multipliers res_blocks z_channels norm_groups codebook_size code_dim"
    )
    assert list(to_dict(JanusConfig())["generation_encoder"]) == fields.split()
    written = to_dict(SPATIAL)
    assert written == to_dict(GROUP) | {"decoder_norm": "spatial"}
    assert to_dict(FREE) == to_dict(GROUP) | {"codebook_l2_norm": False}
    assert GenerationEncoderConfig(**written) == SPATIAL


def test_a_run_keeps_its_sizes(tmp_path):
    values = tiny.WORLD | {"stages": {}}
    for vq in (GROUP, SPATIAL, FREE):
        model = dataclasses.replace(tiny.CONFIG, generation_encoder=vq)
        experiment, _ = resolve(values | {"model": to_dict(model)}, {})
        stored = plain_values(experiment)
        assert resolve(stored, {})[0] == experiment
        assert ("decoder_norm" in stored["model"]["generation_encoder"]) == (vq == SPATIAL)


def test_a_free_code_is_found_by_its_distance(one_device):
    """Also where all codes are short: nothing is added to distances that would drown them."""
    model = drawn(FREE)
    short = 1e-4 * np.random.default_rng(0).normal(size=(GROUP.codebook_size, 8))
    model.codebook = nnx.Param(jnp.asarray(short, jnp.float32))
    z = 1e-4 * pictures(2, 2, 4, 8)[..., :1] * np.ones(8, np.float32)
    apart = ((z[..., None, :].astype(np.float64) - short) ** 2).sum(-1)
    got = run(lambda m, z: m.nearest(z), model, z)
    np.testing.assert_array_equal(got, apart.argmin(-1))
    assert len(np.unique(got)) > 3
    np.testing.assert_array_equal(run(lambda m, i: m.codes(i), model, got), short[got].astype("f4"))
