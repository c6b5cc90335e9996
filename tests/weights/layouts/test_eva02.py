"""EVA-02's CLIP image tower, read from timm's layout, computes what an oracle from the papers does."""

import json

import numpy as np
import pytest
import torch
from support import eva02 as oracle
from support import foreign, vision
from support.oracle import randomise
from support.outputs import same

from janus_jax.weights.layouts import eva02
from janus_jax.weights.table import WeightsError

SIZES = {"size": 24, "patch": 6, "c": 32, "f": 40, "layers": 3, "heads": 2, "grid": 3}
EVA = {
    "mlp_width": 40, "activation": "swiglu", "pixels": "clip", "rotary_grid": 3, "variant": eva02.VARIANT,
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    model = oracle.Eva02(**SIZES).eval().requires_grad_(False)
    randomise(model, 0)
    return model


@pytest.fixture
def saved(theirs, tmp_path):
    tensors = theirs.state_dict() | {"head.weight": torch.zeros(2, 32), "head.bias": torch.zeros(2)}
    foreign.save_file(tensors, tmp_path / "model.safetensors")
    values = {
        "architecture": "eva02_tiny",
        "model_args": {"num_heads": 2, "ref_feat_shape": [3, 3]},
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path


@pytest.mark.parametrize("layer", [-1, -2])
def test_eva_02_gives_the_patches_of_the_layer_that_is_asked_for(theirs, saved, layer, one_device):
    images = vision.images()
    states, last = theirs(vision.normalised(images, "clip"))
    variant = eva02.VARIANT if layer == -1 else (*eva02.VARIANT, "no_final_norm")
    config = vision.config(**EVA | {"variant": variant}, feature_layer=layer)
    want = last if layer == -1 else states[layer]
    same(vision.features(vision.ours(saved, config), images), want[:, 1:])


@pytest.mark.parametrize("grid", [0, 4])
def test_another_grid_of_rotary_embeddings_is_refused(saved, grid, one_device):
    with pytest.raises(WeightsError, match=f"rotary_grid is 3 there, {grid} here"):
        vision.ours(saved, vision.config(**EVA | {"rotary_grid": grid}))


def test_the_oracle_is_timms(theirs):
    timm = pytest.importorskip("timm", reason="timm, which is no dependency")
    other = timm.models.eva.Eva(
        img_size=24, patch_size=6, embed_dim=32, depth=3, num_heads=2, qkv_fused=False, mlp_ratio=1.25,
        swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, use_rot_pos_emb=True, ref_feat_shape=(3, 3),
        global_pool="token", num_classes=0,
    ).eval().requires_grad_(False)  # fmt: skip
    other.load_state_dict(theirs.state_dict())
    pixels = vision.normalised(vision.images(), "clip")
    _, want = theirs(pixels)
    assert np.abs((other.forward_features(pixels) - want).numpy()).max() < 1e-5
