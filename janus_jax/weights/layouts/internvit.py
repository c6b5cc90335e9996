"""InternViT (arXiv 2312.14238, 2412.05271), such as OpenGVLab/InternViT-300M-448px-V2_5: the layout of
its own code (InternVisionModel: q, k and v in one matrix), and transformers' InternVLVisionModel.

Both give the last layer's result as it is (transformers', where its config has use_mean_pooling). The
6B has RMSNorm, norms of queries and keys, and no biases of these.
"""

import math

from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.weights import encoders
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Ignored, Layout, count

KIND = "internvit"
MODEL_TYPES = ("intern_vit_6b", "internvl_vision")
NEEDS_CONFIG = False  # its sizes are read off the tensors
ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
OWN = encoders.Names(
    patch="embeddings.patch_embedding", class_token="embeddings.class_embedding",
    positions="embeddings.position_embedding", block="encoder.layers.*", norm1="norm1", norm2="norm2",
    qkv="attn.qkv", o="attn.proj", q_norm="attn.q_norm", k_norm="attn.k_norm", fc1="mlp.fc1",
    fc2="mlp.fc2", scale1="ls1", scale2="ls2",
)  # fmt: skip
TRANSFORMERS = encoders.Names(
    patch="embeddings.patch_embeddings.projection", class_token="embeddings.cls_token",
    positions="embeddings.position_embeddings", block="encoder.layer.*", norm1="layernorm_before",
    norm2="layernorm_after", q="attention.q_proj", k="attention.k_proj", v="attention.v_proj",
    o="attention.projection_layer", q_norm="attention.q_norm", k_norm="attention.k_norm", fc1="mlp.fc1",
    fc2="mlp.fc2", scale1="lambda_1", scale2="lambda_2", final_norm="layernorm",
)  # fmt: skip
IGNORED = (Ignored("embeddings.mask_token", "what masks patches in pretraining"),)


def recognises(names) -> bool:
    return "encoder.layers.0.ls1" in names or "encoder.layer.0.lambda_1" in names


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json, where there is one. The sizes are read off the tensors."""
    names = OWN if "encoder.layers.0.ls1" in tensors else TRANSFORMERS
    patch = encoders.shape_of(tensors, f"{names.patch}.weight", KIND)
    positions = encoders.shape_of(tensors, names.positions, KIND)
    fc1 = encoders.shape_of(tensors, names.block.replace("*", "0") + ".mlp.fc1.weight", KIND)
    v = Section(values, "", [])
    v.only("hidden_act", *ACTIVATIONS)
    first = names.block.replace("*", "0")
    rms_norm = f"{first}.{names.norm1}.bias" not in tensors
    qk_norm = f"{first}.{names.q_norm}.weight" in tensors
    bias = f"{first}.{names.qkv or names.q}.bias" in tensors
    has = {
        "class_token": True, "layer_scale": True, "qk_norm": qk_norm, "rms_norm": rms_norm,
        "no_qkv_bias": not bias, "no_final_norm": "layernorm.weight" not in tensors,
    }  # fmt: skip
    variant = tuple(word for word in has if has[word])
    heads = v.whole("num_attention_heads", {1024: 16, 3200: 25}.get(patch[0], 1))
    config = UnderstandingEncoderConfig(
        image_size=math.isqrt(positions[-2] - 1) * patch[-1], patch_size=patch[-1], width=patch[0],
        mlp_width=fc1[0], layers=count(tensors, names.block.replace(".*", r"\.(\d+)\.")), heads=heads,
        activation=ACTIVATIONS.get(v.get("hidden_act"), "gelu"),
        norm_eps=v.number("layer_norm_eps", 1e-6), pixels="imagenet", variant=variant,
    )  # fmt: skip
    return encoders.part(KIND, config, encoders.vit_rows(config, "", names), IGNORED, v)
