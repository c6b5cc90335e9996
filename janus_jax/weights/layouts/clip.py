"""CLIP's image tower in transformers' layout (CLIPModel, CLIPVisionModel), such as
openai/clip-vit-large-patch14-336.

What a model takes is the output of a layer before CLIP's last norm, which was trained on the class
token alone; LLaVA takes the last layer but one (feature_layer -2).
"""

import math

from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.weights import encoders
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Ignored, Layout, count

KIND = "clip"
MODEL_TYPES = ("clip", "clip_vision_model")
NEEDS_CONFIG = False  # its sizes are read off the tensors
VARIANT = ("class_token", "pre_norm", "no_patch_bias", "no_final_norm")
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}
HEAD = 64  # the size of a head in every CLIP that was released with a patch of 14, 16 or 32
NAMES = encoders.Names(
    patch="embeddings.patch_embedding", class_token="embeddings.class_embedding",
    positions="embeddings.position_embedding.weight", pre_norm="pre_layrnorm", block="encoder.layers.*",
    norm1="layer_norm1", norm2="layer_norm2", q="self_attn.q_proj", k="self_attn.k_proj",
    v="self_attn.v_proj", o="self_attn.out_proj", fc1="mlp.fc1", fc2="mlp.fc2", leading=(),
)  # fmt: skip
IGNORED = (
    Ignored("*post_layernorm.*", "CLIP's last norm, of the class token alone"),
    Ignored("text_model.*", "CLIP's text tower"),
    Ignored("visual_projection.*", "the class token's way to CLIP's text tower"),
    Ignored("text_projection.*", "CLIP's text tower"),
    Ignored("logit_scale", "the temperature of CLIP's loss"),
    Ignored("*.position_ids", "a buffer that counts positions"),
)


def recognises(names) -> bool:
    return any(
        name in ("pre_layrnorm.weight", "vision_model.pre_layrnorm.weight") for name in names
    )


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json, where there is one. The sizes are read off the tensors."""
    root = "" if "pre_layrnorm.weight" in tensors else "vision_model."
    patch = encoders.shape_of(tensors, f"{root}{NAMES.patch}.weight", KIND)
    positions = encoders.shape_of(tensors, f"{root}{NAMES.positions}", KIND)
    fc1 = encoders.shape_of(tensors, f"{root}encoder.layers.0.mlp.fc1.weight", KIND)
    v = Section(values.get("vision_config", values), "", [])
    v.only("hidden_act", *ACTIVATIONS)
    config = UnderstandingEncoderConfig(
        image_size=math.isqrt(positions[0] - 1) * patch[-1], patch_size=patch[-1], width=patch[0],
        mlp_width=fc1[0], layers=count(tensors, rf"{root}encoder\.layers\.(\d+)\."),
        heads=v.whole("num_attention_heads", max(patch[0] // HEAD, 1)),
        activation=ACTIVATIONS.get(v.get("hidden_act"), "quick_gelu"),
        norm_eps=v.number("layer_norm_eps", 1e-5), pixels="clip", variant=VARIANT,
    )  # fmt: skip
    return encoders.part(KIND, config, encoders.vit_rows(config, root, NAMES), IGNORED, v)
