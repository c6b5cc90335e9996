"""DeepSeek's own layout of Janus (deepseek-ai/Janus: MultiModalityCausalLM), read and written.

Its config.json names the tower by model and the VQ tokenizer by class, so sizes other than the released ones
do not fit in; they are read from (and written to) `vision_config.params` and `gen_vision_config.params` under
the names of `VISION` and `VQ` below, which DeepSeek's own code does not read.
"""

import dataclasses

from janus_jax.convert import parts
from janus_jax.convert.table import Ignored, Plan, Row, compute_dtype, linear, same
from janus_jax.model.config import GenerationEncoderConfig, JanusConfig, UnderstandingEncoderConfig

KIND = "deepseek"
IGNORED = (
    Ignored("vision_model.vision_tower.attn_pool.*", "SigLIP's pooling head, which Janus does not use", True),
    Ignored("gen_vision_model.quantize.codebook_used", "a buffer that counts code usage in training", True),
    Ignored("*.rotary_emb.inv_freq", "rotary frequencies, which follow from the config"),
)
VISION = {  # name in vision_config.params -> field
    "image_size": "image_size", "patch_size": "patch_size", "width": "width", "layers": "layers",
    "heads": "heads",
}  # fmt: skip
VQ = {  # name in gen_vision_config.params -> field
    "image_token_size": "codebook_size", "n_embed": "code_dim", "ch": "channels", "ch_mult": "multipliers",
    "num_res_blocks": "res_blocks", "z_channels": "z_channels", "norm_groups": "norm_groups",
}  # fmt: skip
TOWER = "siglip_large_patch16_384"


def recognises(names) -> bool:
    return any(name.startswith(("vision_model.vision_tower.", "gen_vision_model.")) for name in names)


def rows(c: JanusConfig, tied: bool = False) -> list[Row]:
    d, vq = c.transformer.width, c.generation_encoder
    table = parts.timm_tower_rows(c.understanding_encoder, "vision_model.vision_tower")
    table += parts.vq_rows(vq, "gen_vision_model.", parts.LLAMAGEN)
    for ours, theirs, d_in in (
        ("understanding_adaptor", "aligner", c.understanding_encoder.width),
        ("generation_adaptor", "gen_aligner", vq.code_dim),
    ):
        table += linear(f"{ours}.fc1", f"{theirs}.layers.0", d_in, d)
        table += linear(f"{ours}.fc2", f"{theirs}.layers.2", d, d)
    table += same("generation_embedding.table", "gen_embed.weight", vq.codebook_size, vq.code_dim)
    table += linear("image_head.fc1", "gen_head.output_mlp_projector", d, c.image_head_width)
    table += linear("image_head.fc2", "gen_head.vision_head", c.image_head_width, vq.codebook_size)
    return table + parts.llama_rows(c.transformer, "language_model.model", "language_model.lm_head", tied)


def plan(values: dict, tensors: dict) -> Plan:
    """values: its config.json."""
    sections = {
        name: section.get("params", {}) for name, section in values.items() if isinstance(section, dict)
    }
    language = values.get("language_config", {})
    llm, problems = parts.llama_config(language, "language_config.")
    tower, more = _tower(sections.get("vision_config", {}))
    for name in ("aligner_config", "gen_aligner_config"):
        section = {"projector_type": "mlp_gelu", "depth": 2} | sections.get(name, {})
        more += [
            f"{name}.params.{key} is {section[key]!r}; this model can only be {want!r}"
            for key, want in (("projector_type", "mlp_gelu"), ("depth", 2))
            if section[key] != want
        ]
    config = JanusConfig(
        tower, _vq(sections.get("gen_vision_config", {}), tower), llm,
        image_head_width=sections.get("gen_head_config", {}).get("image_token_embed", llm.width),
        dtype=compute_dtype(language | values, {t.dtype for t in tensors.values()}),
    )  # fmt: skip
    tied = bool(language.get("tie_word_embeddings")) and "language_model.lm_head.weight" not in tensors
    return Plan(KIND, rows(config, tied), IGNORED, config, (*problems, *more))


def _tower(params: dict) -> tuple[UnderstandingEncoderConfig, list[str]]:
    released = UnderstandingEncoderConfig()
    sizes = {field: params.get(name, getattr(released, field)) for name, field in VISION.items()}
    sizes["mlp_width"] = round(sizes["width"] * params.get("mlp_ratio", released.mlp_width / released.width))
    problems = []
    model, feature = params.get("model_name", TOWER), params.get("select_feature", "same")
    if model != TOWER and not {"width", "layers", "heads", "patch_size"} <= params.keys():
        problems.append(
            f"vision_config.params.model_name is {model!r}, of unknown sizes; {TOWER!r} is known, for another "
            f"tower add width, layers, heads, patch_size and mlp_ratio there"
        )
    if feature != "same":
        problems.append(f"vision_config.params.select_feature is {feature!r}; this model can only be 'same'")
    if params.get("pixel_mean") is not None or params.get("pixel_std") is not None:
        problems.append(
            "vision_config.params.pixel_mean and pixel_std are set; this model takes pictures that the processor "
            "has normalised, so move them to preprocessor_config.json"
        )
    depth, select = sizes["layers"], params.get("select_layer", -1)
    # The original builds the blocks up to the selected one only; the final norm always follows.
    sizes["layers"] = min(depth, depth + select + 1) if select <= 0 else min(depth, select)
    if sizes["layers"] < 1:
        problems.append(f"vision_config.params.select_layer is {select}, of a tower of {depth} layers")
    return UnderstandingEncoderConfig(**sizes), problems


def _vq(params: dict, tower: UnderstandingEncoderConfig) -> GenerationEncoderConfig:
    released = GenerationEncoderConfig()
    sizes = {field: params.get(name, getattr(released, field)) for name, field in VQ.items()}
    sizes["multipliers"] = tuple(sizes["multipliers"])
    vq = GenerationEncoderConfig(**sizes)
    # A picture drawn has as many tokens a side as a picture read, unless the config says otherwise.
    side = params.get("image_size", tower.image_size // tower.patch_size * vq.stride)
    return dataclasses.replace(vq, image_size=side)


def config_values(c: JanusConfig, dtype: str, ids: dict) -> dict:
    """config.json in the original's schema; see the module's note on sizes that are not the released ones."""
    tower, vq, d = c.understanding_encoder, c.generation_encoder, c.transformer.width
    vision = {
        "image_size": tower.image_size,
        "model_name": TOWER,
        "select_feature": "same",
        "select_layer": -1,
    }
    if tower != UnderstandingEncoderConfig():
        vision |= {name: getattr(tower, field) for name, field in VISION.items()}
        vision |= {"model_name": "siglip", "mlp_ratio": tower.mlp_width / tower.width}
    drawn = {"image_token_size": vq.codebook_size, "n_embed": vq.code_dim}
    if vq != GenerationEncoderConfig():
        drawn |= {name: getattr(vq, field) for name, field in VQ.items()} | {"image_size": vq.image_size}
    head = {"image_token_embed": c.image_head_width, "image_token_size": vq.codebook_size, "n_embed": d}
    mlp = {"depth": 2, "n_embed": d, "projector_type": "mlp_gelu"}
    section = lambda cls, kind, params: {"cls": cls, "model_type": kind, "params": params}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "aligner_config": section("MlpProjector", "aligner", mlp | {"input_dim": tower.width}),
        "gen_aligner_config": section("MlpProjector", "gen_aligner", mlp | {"input_dim": vq.code_dim}),
        "gen_head_config": section("vision_head", "gen_head", head),
        "gen_vision_config": section("VQ-16", "gen_vision", drawn),
        "language_config": parts.llama_values(c.transformer, ids, dtype)
        | {"rope_theta": c.transformer.rope_theta},
        "vision_config": section("CLIPVisionTower", "vision", vision),
    }


def unwritable(c: JanusConfig) -> list[str]:
    """What of this config the layout cannot say: nothing, see the module's note."""
    return []
