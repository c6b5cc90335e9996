"""diffusers' VQModel alone (models/autoencoders/vq_model.py), read: the MoVQ of Kandinsky 2 and 3
among them, a folder `movq` of config.json and diffusion_pytorch_model.safetensors.

Its codes are free: the nearest one counts with its length. Not read: other blocks than those of
LlamaGen's network, which attends at the lowest resolution alone.
"""

from janus_jax.config.sizes import NORMS
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.weights import vq_parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Layout

KIND = "diffusers_vq"
MODEL_TYPES = ()
NEEDS_CONFIG = True  # its norm groups and blocks stand in config.json only
GROUPS = 32  # of spatial norms, which stand in its code
OUT = "decoder.conv_norm_out"


def recognises(names) -> bool:
    blocks = any(name.startswith("encoder.down_blocks.") for name in names)
    return blocks and "quantize.embedding.weight" in names


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json. Its sample_size says nothing of the network and is not read."""
    problems = []
    v = Section(values, "", problems)
    v.only("_class_name", "VQModel")
    widths = v.get("block_out_channels", [64])
    whole = isinstance(widths, list) and all(type(x) is int and x > 0 for x in widths)
    if not (whole and widths and all(x % widths[0] == 0 for x in widths)):
        v.refuse("block_out_channels", widths, "whole numbers, each a multiple of the first")
        widths = [64]
    kind = v.get("norm_type", "group")
    if kind not in NORMS:
        v.refuse("norm_type", kind, " or ".join(map(repr, NORMS)))
        kind = "group"
    found = "spatial" if f"{OUT}.norm_layer.weight" in tensors else "group"
    if found != kind:
        v.refuse("norm_type", kind, f"{found!r}, as its tensors {OUT}.* are")
    z_channels = v.whole("latent_channels", 3)
    sizes = GenerationEncoderConfig(
        channels=widths[0], multipliers=tuple(x // widths[0] for x in widths),
        res_blocks=v.count("layers_per_block", 1), z_channels=z_channels,
        norm_groups=v.whole("norm_num_groups", 32), codebook_size=v.whole("num_vq_embeddings", 256),
        code_dim=v.whole("vq_embed_dim", z_channels), decoder_norm=kind, codebook_l2_norm=False,
    )  # fmt: skip
    _require_blocks(v, len(widths))
    v.only("in_channels", 3)
    v.only("out_channels", 3)
    v.only("act_fn", "silu")
    v.only("mid_block_add_attention", True)
    if sizes.channels % sizes.norm_groups:
        problems.append(
            f"block_out_channels is {widths}: norm_num_groups, {sizes.norm_groups}, does not divide "
            f"{sizes.channels}"
        )
    if kind == "spatial":
        v.only("norm_num_groups", GROUPS, why="with norm_type 'spatial' diffusers' norms")
        v.only("vq_embed_dim", z_channels, why="with norm_type 'spatial' the codes are latents: it")
    v.rest("sample_size", "scaling_factor", "lookup_from_codebook", "force_upcast", "_*")
    unshaped = {
        "generation_encoder.norm_groups": sizes.norm_groups,
        "generation_encoder.codebook_l2_norm": False,
    }
    rows = vq_parts.vq_rows(sizes, "", vq_parts.DIFFUSERS)
    return Layout(KIND, rows, problems=tuple(problems), unshaped=unshaped)


def _require_blocks(v: Section, levels: int):
    """Tells of blocks that ours do not have."""
    down = ["DownEncoderBlock2D"] * (levels - 1) + ["AttnDownEncoderBlock2D"]
    up = ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * (levels - 1)
    for name, known in (("down_block_types", down), ("up_block_types", up)):
        if v.get(name) != known:
            v.refuse(name, v.get(name), f"{', '.join(known)}: attention at the lowest level alone")
