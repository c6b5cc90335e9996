"""Other people's weights at tiny sizes, made once."""

import pytest
import torch
import transformers
from flax import nnx
from support import foreign
from support.foreign import convert
from support.mesh import on_mesh

import janus_jax
from janus_jax.weights.load import export


@pytest.fixture(scope="session")
def hf(tmp_path_factory):
    return foreign.save_transformers(tmp_path_factory.mktemp("weights") / "hf")


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    return foreign.save_original(tmp_path_factory.mktemp("weights") / "original", "bfloat16")


@pytest.fixture(scope="session")
def written(hf, tmp_path_factory):
    """A model of ours, exported as training does, in transformers' layout."""
    directory = tmp_path_factory.mktemp("out")
    with on_mesh():
        model, processor = janus_jax.load(hf, unrolled=False)
        export(directory / "ours", nnx.to_pure_dict(nnx.state(model)), model.config, processor)
    return convert(directory / "ours", directory / "hf", "transformers")


@pytest.fixture(scope="session")
def siglip():
    """transformers' tower at the tiny sizes, exact GELU as Janus computes it."""
    c = foreign.config().understanding_encoder
    config = transformers.SiglipVisionConfig(
        hidden_size=c.width, intermediate_size=c.mlp_width, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, image_size=c.image_size, patch_size=c.patch_size, hidden_act="gelu",
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.SiglipVisionModel(config).eval().requires_grad_(False)
    for p in model.parameters():
        p.copy_(torch.randn_like(p) * 0.2)
    return model
