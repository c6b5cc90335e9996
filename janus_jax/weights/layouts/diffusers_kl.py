"""diffusers' AutoencoderKL alone (models/autoencoders/autoencoder_kl.py), read and written: the
tokenizer of Stable Diffusion and of MAR (KL-16), a folder `vae` of config.json and
diffusion_pytorch_model.safetensors.

Not read: those without the 1x1 convolutions around the latents (use_quant_conv false, as in Stable
Diffusion 3), and those whose latents are shifted.
"""

import dataclasses

from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.weights import vq_parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Layout, Row

KIND = "diffusers_kl"
MODEL_TYPES = ()
NEEDS_CONFIG = True  # its norm groups and its scale stand in config.json only
FILE = "diffusion_pytorch_model.safetensors"
CLASS = "AutoencoderKL"
# What diffusers called the maps of its attention before version 0.17, and other code after it.
OLD = ("query", "key", "value", "proj_attn")
OLD_KEY = "encoder.mid_block.attentions.0.query.weight"


def recognises(names) -> bool:
    blocks = any(name.startswith("encoder.down_blocks.") for name in names)
    codes = any(name.startswith("quantize.") for name in names)
    return blocks and not codes and "decoder.conv_in.weight" in names


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json. Its sample_size says nothing of the network and is not read."""
    problems = []
    v = Section(values, "", problems)
    v.only("_class_name", CLASS)
    widths = v.get("block_out_channels", [64])
    whole = isinstance(widths, list) and all(type(x) is int and x > 0 for x in widths)
    if not (whole and widths and all(x % widths[0] == 0 for x in widths)):
        v.refuse("block_out_channels", widths, "whole numbers, each a multiple of the first")
        widths = [64]
    latent = v.whole("latent_channels", 4)
    sizes = GenerationEncoderConfig(
        channels=widths[0], multipliers=tuple(x // widths[0] for x in widths),
        res_blocks=v.count("layers_per_block", 1), z_channels=latent, code_dim=latent,
        norm_groups=v.whole("norm_num_groups", 32), latent="kl",
        latent_scale=v.number("scaling_factor", 0.18215, above=True),
    )  # fmt: skip
    for name, block in blocks(len(widths)).items():
        if v.get(name) != block:
            v.refuse(name, v.get(name), f"{block[0]} at each of {len(widths)} levels")
    for name in ("in_channels", "out_channels"):
        v.only(name, 3)
    v.only("act_fn", "silu")
    for name in ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"):
        v.only(name, True)
    for name in ("shift_factor", "latents_mean", "latents_std"):
        v.only(name, 0, why="latents are scaled here and not shifted: it")
    if sizes.channels % sizes.norm_groups:
        problems.append(
            f"block_out_channels is {widths}: norm_num_groups, {sizes.norm_groups}, does not divide "
            f"{sizes.channels}"
        )
    v.rest("sample_size", "force_upcast", "_*")
    unshaped = {
        "generation_encoder.norm_groups": sizes.norm_groups,
        "generation_encoder.latent_scale": sizes.latent_scale,
    }
    return Layout(
        KIND, table(sizes, OLD_KEY in tensors), problems=tuple(problems), unshaped=unshaped
    )


def blocks(levels: int) -> dict[str, list[str]]:
    """The names of its blocks, as config.json has them."""
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }


def table(sizes: GenerationEncoderConfig, old: bool = False) -> list[Row]:
    naming = vq_parts.DIFFUSERS
    if old:
        naming = dataclasses.replace(naming, maps=OLD)
    return vq_parts.vq_rows(sizes, "", naming)


def kl_sizes(shapes: dict[str, tuple], unshaped: dict) -> GenerationEncoderConfig:
    """Raises ValueError for what is no KL tokenizer, or one that diffusers' class does not have."""
    sizes = vq_parts.vq_sizes(shapes, unshaped)
    if sizes.latent != "kl":
        raise ValueError(f"{KIND} is for KL tokenizers: generation_encoder.latent is 'vq' here")
    if sizes.z_channels != sizes.code_dim:
        raise ValueError(
            f"{KIND} cannot represent this tokenizer: generation_encoder.z_channels is "
            f"{sizes.z_channels} and code_dim {sizes.code_dim}, and diffusers' class has one size for both"
        )
    return sizes


def config_values(sizes: GenerationEncoderConfig) -> dict:
    """config.json."""
    return {
        "_class_name": CLASS, "act_fn": "silu",
        "block_out_channels": [sizes.channels * m for m in sizes.multipliers],
        **blocks(len(sizes.multipliers)), "in_channels": 3, "latent_channels": sizes.code_dim,
        "layers_per_block": sizes.res_blocks, "norm_num_groups": sizes.norm_groups, "out_channels": 3,
        "scaling_factor": sizes.latent_scale,
    }  # fmt: skip
