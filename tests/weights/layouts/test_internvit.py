"""InternViT, read from transformers' layout and from its own, computes what transformers does."""

import re

import pytest
import torch
from support import foreign, vision
from support.outputs import same

from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError

COMMON = {"pixels": "imagenet"}
# (what transformers' config says, what ours has)
FORMS = {
    "300M": ({"attention_bias": True}, ("class_token", "layer_scale", "no_final_norm")),
    "6B": (
        {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm"},
        ("class_token", "layer_scale", "qk_norm", "rms_norm", "no_qkv_bias", "no_final_norm"),
    ),
    "normed": (
        {"attention_bias": True, "use_mean_pooling": False}, ("class_token", "layer_scale"),
    ),
}  # fmt: skip
RENAMED = [  # transformers' name -> InternViT's own
    (r"embeddings\.cls_token", "embeddings.class_embedding"),
    (r"embeddings\.position_embeddings", "embeddings.position_embedding"),
    (r"embeddings\.patch_embeddings\.projection", "embeddings.patch_embedding"),
    (r"encoder\.layer\.", "encoder.layers."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"lambda_(\d)", r"ls\1"),
    (r"attention\.projection_layer", "attn.proj"),
    (r"attention\.([qk])_norm", r"attn.\1_norm"),
]


def own_layout(tensors: dict) -> dict:
    """The same weights as InternViT's own code has them: q, k and v in one."""
    out, parts = {}, {}
    for name, x in tensors.items():
        for a, b in RENAMED:
            name = re.sub(a, b, name)
        if found := re.search(r"attention\.([qkv])_proj", name):
            whole = name.replace(found.group(), "attn.qkv")
            parts.setdefault(whole, {})[found.group(1)] = x
        else:
            out[name] = x
    return out | {name: torch.cat([some[p] for p in "qkv"]) for name, some in parts.items()}


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["transformers", "own"])
def test_internvit_gives_the_patches_of_the_layer_that_is_asked_for(
    layout, form, layer, tmp_path, one_device
):
    sizes, variant = FORMS[form]
    if form == "normed" and (layout == "own" or layer != -1):
        pytest.skip("transformers' last norm alone")
    theirs = vision.theirs("InternVLVisionModel", **sizes)
    if layout == "transformers":
        theirs.save_pretrained(tmp_path)
    else:
        foreign.save_file(own_layout(theirs.state_dict()), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(
            '{"model_type": "intern_vit_6b", "num_attention_heads": 2, "hidden_act": "gelu"}'
        )
    images = vision.images()
    out = theirs(vision.normalised(images, "imagenet"), output_hidden_states=True)
    want = out.last_hidden_state if layer == -1 else out.hidden_states[layer]
    config = vision.config(**COMMON, variant=variant, feature_layer=layer)
    same(vision.features(vision.ours(tmp_path, config), images), want[:, 1:])


def test_the_6b_for_a_config_of_the_300m_says_which_leaves_differ(tmp_path, one_device):
    theirs = vision.theirs("InternVLVisionModel", **FORMS["6B"][0])
    theirs.save_pretrained(tmp_path)
    with pytest.raises(WeightsError) as raised:
        vision.ours(tmp_path, vision.config(**COMMON, variant=FORMS["300M"][1]))
    for line in (
        "missing: understanding_encoder.blocks.attention.q.bias",
        "unknown: understanding_encoder.blocks.attention.q_norm.scale",
    ):
        assert line in str(raised.value)


def test_a_width_that_its_heads_do_not_divide_is_refused(tmp_path):
    theirs = vision.theirs("InternVLVisionModel")
    foreign.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"num_attention_heads": 3}')
    with pytest.raises(WeightsError, match="num_attention_heads is 3: hidden_size, 32, does not"):
        open_source(tmp_path)
