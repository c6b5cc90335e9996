"""CLIP's image tower, read from transformers' layout, computes what transformers does."""

import pytest
import torch
from support import foreign, vision
from support.outputs import same

from janus_jax.weights.layouts import clip
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError

CLIP = {"activation": "quick_gelu", "norm_eps": 1e-5, "pixels": "clip", "variant": clip.VARIANT}


@pytest.fixture(scope="module")
def theirs():
    return vision.theirs("CLIPVisionModel")


@pytest.fixture
def saved(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.mark.parametrize("layer", [-1, -2, -3])
def test_clip_gives_the_patches_of_the_layer_that_is_asked_for(theirs, saved, layer, one_device):
    images = vision.images()
    out = theirs(vision.normalised(images, "clip"), output_hidden_states=True)
    encoder = vision.ours(saved, vision.config(**CLIP, feature_layer=layer))
    same(vision.features(encoder, images), out.hidden_states[layer][:, 1:])


def test_clip_with_its_text_tower_is_read_for_its_image_tower(theirs, tmp_path, one_device):
    tensors = {
        "vision_model." + name.removeprefix("vision_model."): x
        for name, x in theirs.state_dict().items()
    }
    more = {
        "text_model.final_layer_norm.weight": (2,),
        "logit_scale": (),
        "visual_projection.weight": (2, 2),
    }
    tensors |= {name: torch.zeros(shape) for name, shape in more.items()}
    foreign.save_file(tensors, tmp_path / "model.safetensors")
    theirs.config.save_pretrained(tmp_path)
    images = vision.images()
    want = theirs(vision.normalised(images, "clip"), output_hidden_states=True).hidden_states[-2]
    encoder = vision.ours(tmp_path, vision.config(**CLIP, feature_layer=-2))
    same(vision.features(encoder, images), want[:, 1:])


@pytest.mark.parametrize(
    "differences, says",
    [
        ({"activation": "gelu"}, "activation is 'quick_gelu' there, 'gelu' here"),
        ({"norm_eps": 1e-6}, "norm_eps is 1e-05 there, 1e-06 here"),
        ({"pixels": "siglip"}, "pixels is 'clip' there, 'siglip' here"),
        ({"heads": 4}, "heads is 2 there, 4 here"),
        ({"layers": 4, "feature_layer": -2}, "layers is 3 there, 4 here"),
        ({"layers": 2}, "layers is 3 there, 2 here"),
        ({"width": 64}, "width is 32 there, 64 here"),
        ({"variant": clip.VARIANT[1:]}, "unknown: understanding_encoder.class_token"),
        ({"variant": clip.VARIANT[:-1]}, "missing: understanding_encoder.norm.scale"),
    ],
)
def test_clip_that_is_not_the_configs_is_refused_by_name(saved, differences, says, one_device):
    with pytest.raises(WeightsError, match=says):
        vision.ours(saved, vision.config(**CLIP | differences))


def test_clip_for_a_config_of_siglip_says_which_leaves_are_not_siglips(saved, one_device):
    with pytest.raises(WeightsError) as raised:
        vision.ours(saved, vision.config())
    for line in (
        "activation is 'quick_gelu' there, 'gelu' here",
        "pixels is 'clip' there, 'siglip' here",
        "missing: understanding_encoder.patch_bias (32,)",
        "missing: understanding_encoder.norm.scale (32,)",
        "unknown: understanding_encoder.class_token (1, 32)",
        "unknown: understanding_encoder.pre_norm.scale (32,)",
    ):
        assert line in str(raised.value)


def test_a_clip_without_positions_is_refused(theirs, tmp_path):
    tensors = theirs.state_dict()
    foreign.save_file(
        {name: x for name, x in tensors.items() if "position_embedding" not in name},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(WeightsError, match=r"without .*position_embedding\.weight, so its sizes"):
        open_source(tmp_path)
