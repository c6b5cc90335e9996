"""EVA-02's CLIP image towers (arXiv 2303.11331, 2303.15389) as timm writes them, such as
timm/eva02_large_patch14_clip_336.merged2b: 2-D rotary embeddings beside learned positions, SwiGLU, a
norm before the last map of each part, no bias of keys.
"""

import math

from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.weights import encoders
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Ignored, Layout, count

KIND = "eva02"
MODEL_TYPES = ("timm_wrapper",)
NEEDS_CONFIG = False  # its sizes are read off the tensors
VARIANT = ("class_token", "no_key_bias", "sub_norm")
HEAD = 64  # the size of a head in all of them
GRID = 16  # the side of the grid whose places all of them learned rotary embeddings for
NAMES = encoders.Names(
    patch="patch_embed.proj", class_token="cls_token", positions="pos_embed", block="blocks.*", norm1="norm1",
    norm2="norm2", q="attn.q_proj", k="attn.k_proj", v="attn.v_proj", o="attn.proj", fc1="mlp.fc1_x",
    gate="mlp.fc1_g", fc2="mlp.fc2", attention_norm="attn.norm", mlp_norm="mlp.norm", final_norm="norm",
)  # fmt: skip


def recognises(names) -> bool:
    return any(
        name in names
        for name in ("blocks.0.attn.norm.weight", "timm_model.blocks.0.attn.norm.weight")
    )


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json, where there is one. The sizes are read off the tensors."""
    root = "" if "blocks.0.attn.norm.weight" in tensors else "timm_model."
    patch = encoders.shape_of(tensors, f"{root}{NAMES.patch}.weight", KIND)
    positions = encoders.shape_of(tensors, f"{root}{NAMES.positions}", KIND)
    gate = encoders.shape_of(tensors, f"{root}blocks.0.{NAMES.gate}.weight", KIND)
    v = Section(values.get("model_args"), "model_args.", [])
    grid = v.wholes("ref_feat_shape", (GRID, GRID))
    config = UnderstandingEncoderConfig(
        image_size=math.isqrt(positions[-2] - 1) * patch[-1], patch_size=patch[-1], width=patch[0],
        mlp_width=gate[0], layers=count(tensors, rf"{root}blocks\.(\d+)\."),
        heads=v.whole("num_heads", max(patch[0] // HEAD, 1)), activation="swiglu", pixels="clip",
        rotary_grid=grid[0], variant=VARIANT,
    )  # fmt: skip
    ignored = (Ignored(f"{root}head.*", "the class token's way to CLIP's text tower"),)
    return encoders.part(KIND, config, encoders.vit_rows(config, root, NAMES), ignored, v)
