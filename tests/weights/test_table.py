"""The tables of the layouts fill every leaf of a model."""

import pytest
from flax import nnx
from support import foreign, tiny
from support.foreign import leaves

from janus_jax.model import presets
from janus_jax.model.janus import abstract
from janus_jax.weights.layouts import janus_hf, janus_torch


@pytest.mark.parametrize(
    "config", [foreign.config(), tiny.CONFIG, presets.janus_pro_7b()], ids=["a", "b", "7B"]
)
def test_every_table_fills_every_leaf(config, one_device):
    ours = {name: x.shape for name, x in leaves(nnx.state(abstract(config))).items()}
    for module in (janus_torch, janus_hf):
        rows = module.rows(config)
        assert {row.ours: row.our_shape for row in rows} == ours and len(rows) == len(ours), (
            module.KIND
        )
