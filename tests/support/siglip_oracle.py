"""transformers' SigLIP with small random weights, the same as big_vision writes them, and ours with
them."""

import dataclasses

import numpy as np
import torch
import transformers
from support import tiny

from janus_jax.model.config import UnderstandingEncoderConfig

LENGTH = 6
TOWER = UnderstandingEncoderConfig(
    image_size=24, patch_size=6, width=32, mlp_width=48, layers=2, heads=4
)
CONFIG = dataclasses.replace(tiny.CONFIG, understanding_encoder=TOWER, dtype="float32")


def their_model() -> transformers.SiglipModel:
    """With the exact GELU, which ours has."""
    both = {
        "hidden_size": TOWER.width, "intermediate_size": TOWER.mlp_width, "num_hidden_layers": TOWER.layers,
        "num_attention_heads": TOWER.heads, "hidden_act": "gelu", "attn_implementation": "eager",
    }  # fmt: skip
    text = both | {
        "vocab_size": CONFIG.transformer.vocabulary, "max_position_embeddings": LENGTH,
        "projection_size": TOWER.width, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1,
    }  # fmt: skip
    vision = both | {"image_size": TOWER.image_size, "patch_size": TOWER.patch_size}
    torch.manual_seed(0)
    model = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=vision)
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if p.ndim == 1 and len(p) == 1 else 0.0))
    return model


def big_vision(tensors: dict, heads: int) -> dict[str, np.ndarray]:
    """transformers' tensors (numpy, by name) under big_vision's names and in its shapes, layer by
    layer."""
    out = {}
    t = tensors
    pair = lambda name: (t[f"{name}.weight"], t[f"{name}.bias"])

    def norm(ours, theirs):
        out[f"{ours}/scale"] = t[f"{theirs}.weight"]
        out[f"{ours}/bias"] = t[f"{theirs}.bias"]

    def dense(ours, theirs):
        out[f"{ours}/kernel"] = t[f"{theirs}.weight"].T
        out[f"{ours}/bias"] = t[f"{theirs}.bias"]

    def attention(ours, maps):
        for name, (w, b) in maps.items():
            shape = (heads, -1, len(w)) if name == "out" else (len(w), heads, -1)
            key = f"{ours}/MultiHeadDotProductAttention_0/{name}"
            out[f"{key}/kernel"] = w.T.reshape(shape)
            out[f"{key}/bias"] = b if name == "out" else b.reshape(heads, -1)

    def encoder(ours, theirs, layers):
        for i in range(layers):
            a, b = f"{ours}/encoderblock_{i}", f"{theirs}.encoder.layers.{i}"
            for j in (0, 1):
                norm(f"{a}/LayerNorm_{j}", f"{b}.layer_norm{j + 1}")
                dense(f"{a}/MlpBlock_0/Dense_{j}", f"{b}.mlp.fc{j + 1}")
            names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
            attention(a, {name: pair(f"{b}.self_attn.{map_}") for name, map_ in names.items()})

    layers = TOWER.layers
    e = "vision_model.embeddings"
    out["img/embedding/kernel"] = t[f"{e}.patch_embedding.weight"].transpose(2, 3, 1, 0)
    out["img/embedding/bias"] = t[f"{e}.patch_embedding.bias"]
    out["img/pos_embedding"] = t[f"{e}.position_embedding.weight"][None]
    encoder("img/Transformer", "vision_model", layers)
    norm("img/Transformer/encoder_norm", "vision_model.post_layernorm")
    head, theirs = "img/MAPHead_0", "vision_model.head"
    out[f"{head}/probe"] = t[f"{theirs}.probe"]
    w = np.split(t[f"{theirs}.attention.in_proj_weight"], 3)
    b = np.split(t[f"{theirs}.attention.in_proj_bias"], 3)
    fused = dict(zip(("query", "key", "value"), zip(w, b)))
    attention(head, fused | {"out": pair(f"{theirs}.attention.out_proj")})
    norm(f"{head}/LayerNorm_0", f"{theirs}.layernorm")
    for j in (0, 1):
        dense(f"{head}/MlpBlock_0/Dense_{j}", f"{theirs}.mlp.fc{j + 1}")
    e = "text_model.embeddings"
    out["txt/Embed_0/embedding"] = t[f"{e}.token_embedding.weight"]
    out["txt/pos_embedding"] = t[f"{e}.position_embedding.weight"][None]
    encoder("txt/Encoder_0", "text_model", layers)
    norm("txt/Encoder_0/encoder_norm", "text_model.final_layer_norm")
    dense("txt/head", "text_model.head")
    out["t"] = t["logit_scale"]
    out["b"] = t["logit_bias"]
    return out


def tensors(model, of=lambda p: p) -> dict[str, np.ndarray]:
    """Its weights, or what `of` makes of each."""
    return {name: of(p).detach().numpy() for name, p in model.named_parameters()}
