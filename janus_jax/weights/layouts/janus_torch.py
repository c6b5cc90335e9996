"""DeepSeek's own layout of Janus (deepseek-ai/Janus: MultiModalityCausalLM), read and written.

Its config.json names the tower by model and the VQ tokenizer by class, so sizes other than the
released ones do not fit in; they are read from (and written to) `vision_config.params` and
`gen_vision_config.params` under the names of `VISION` and `VQ` below, which DeepSeek's own code
does not read.
"""

import dataclasses

from janus_jax.model.config import GenerationEncoderConfig, JanusConfig, UnderstandingEncoderConfig
from janus_jax.weights import differences, parts, vq_parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Ignored, Layout, Row, compute_dtype, linear, same

KIND = "deepseek"
MODEL_TYPES = ("multi_modality",)
NEEDS_CONFIG = True  # its sizes stand in config.json only
IGNORED = (
    Ignored(
        "vision_model.vision_tower.attn_pool.*",
        "SigLIP's pooling head, which Janus does not use",
        True,
    ),
    Ignored(
        "gen_vision_model.quantize.codebook_used",
        "a buffer that counts code usage in training",
        True,
    ),
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
    return any(
        name.startswith(("vision_model.vision_tower.", "gen_vision_model.")) for name in names
    )


def rows(c: JanusConfig, tied: bool = False) -> list[Row]:
    d = c.transformer.width
    vq = c.generation_encoder
    seen, drawn = c.read_widths
    table = parts.timm_tower_rows(c.understanding_encoder, "vision_model.vision_tower")
    table += vq_parts.vq_rows(vq, "gen_vision_model.", vq_parts.LLAMAGEN)
    for ours, theirs, d_in in (
        ("understanding_adaptor", "aligner", seen),
        ("generation_adaptor", "gen_aligner", drawn),
    ):
        table += linear(f"{ours}.fc1", f"{theirs}.layers.0", d_in, d)
        table += linear(f"{ours}.fc2", f"{theirs}.layers.2", d, d)
    table += same("generation_embedding.table", "gen_embed.weight", vq.codebook_size, vq.code_dim)
    table += linear("image_head.fc1", "gen_head.output_mlp_projector", d, c.image_head_width)
    table += linear("image_head.fc2", "gen_head.vision_head", c.image_head_width, vq.codebook_size)
    return table + parts.llama_rows(
        c.transformer, "language_model.model", "language_model.lm_head", tied
    )


def layout(values: dict, tensors: dict) -> Layout:
    """values: its config.json."""
    problems = []
    if tensors and not any(name.startswith("gen_") for name in tensors):
        raise ValueError(
            "no tensor of it draws (gen_vision_model and others), so it is DeepSeek-VL; take Janus or "
            "Janus-Pro"
        )
    top = Section(values, "", problems)
    language = top.section("language_config")
    llm = parts.llama_config(language)
    tower = _tower(_params(top, "vision_config"))
    vq = _vq(_params(top, "gen_vision_config"), tower)
    for name, d_in in (("aligner_config", tower.width), ("gen_aligner_config", vq.code_dim)):
        params = _params(top, name)
        for key, want in (
            ("projector_type", "mlp_gelu"),
            ("depth", 2),
            ("input_dim", d_in),
            ("n_embed", llm.width),
        ):
            params.only(key, want)
        params.rest()
    head = _params(top, "gen_head_config")
    head.only("image_token_size", vq.codebook_size)
    head.only("n_embed", llm.width)
    config = JanusConfig(
        tower, vq, llm, image_head_width=head.whole("image_token_embed", llm.width),
        dtype=compute_dtype(language.values | top.values, {t.dtype for t in tensors.values()}),
    )  # fmt: skip
    head.rest()
    top.only("model_type", "multi_modality")
    parts.known_dtype(top)
    top.rest("tie_word_embeddings")
    tied = language.flag("tie_word_embeddings", False)
    tied = tied and "language_model.lm_head.weight" not in tensors
    return Layout(KIND, rows(config, tied), IGNORED, config, tuple(problems))


def _params(top: Section, name: str) -> Section:
    """What a section's class is built with."""
    section = top.section(name)
    params = section.section("params")
    section.rest("cls", "model_type")
    return params


def _tower(v: Section) -> UnderstandingEncoderConfig:
    released = UnderstandingEncoderConfig()
    sizes = {}
    for name, field in VISION.items():
        take = v.count if field == "layers" else v.whole
        sizes[field] = take(name, getattr(released, field))
    ratio = v.ratio("mlp_ratio", released.mlp_width / released.width)
    sizes["mlp_width"] = round(sizes["width"] * ratio)
    model = v.get("model_name", TOWER)
    if model != TOWER and not {"width", "layers", "heads", "patch_size"} <= v.values.keys():
        v.problems.append(
            f"{v.where}model_name is {model!r}, of unknown sizes; {TOWER!r} is known, "
            f"for another tower add width, layers, heads, patch_size and mlp_ratio there"
        )
    v.only("select_feature", "same")
    if v.get("pixel_mean") is not None or v.get("pixel_std") is not None:
        v.problems.append(
            f"{v.where}pixel_mean and pixel_std are set; this model takes pictures that "
            "the processor has normalised, so move them to preprocessor_config.json"
        )
    depth = sizes["layers"]
    select = v.whole("select_layer", -1, low=-1000)
    if select <= -depth - 1:
        v.problems.append(f"{v.where}select_layer is {select}, of a tower of {depth} layers")
        select = -1
    # The original builds the blocks up to the selected one only; the final norm always follows.
    sizes["layers"] = min(depth, depth + select + 1) if select <= 0 else min(depth, select)
    parts.tower_problems(UnderstandingEncoderConfig(**sizes), v, "width", "heads")
    v.rest("ckpt_path", "name")
    return UnderstandingEncoderConfig(**sizes)


def _vq(v: Section, tower: UnderstandingEncoderConfig) -> GenerationEncoderConfig:
    released = GenerationEncoderConfig()
    sizes = {}
    for name, field in VQ.items():
        take = {"multipliers": v.wholes, "res_blocks": v.count}.get(field, v.whole)
        sizes[field] = take(name, getattr(released, field))
    vq = GenerationEncoderConfig(**sizes)
    # A picture drawn has as many tokens a side as a picture read, unless the config says otherwise.
    side = v.whole("image_size", tower.image_size // tower.patch_size * vq.stride)
    vq = dataclasses.replace(vq, image_size=side)
    vq_parts.vq_problems(vq, v, "ch", "image_size")
    v.rest()
    return vq


def config_values(c: JanusConfig, dtype: str, ids: dict) -> dict:
    """config.json in the original's schema; see the module's note on sizes that are not the
    released ones."""
    tower = c.understanding_encoder
    vq = c.generation_encoder
    d = c.transformer.width
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
        drawn |= {name: getattr(vq, field) for name, field in VQ.items()} | {
            "image_size": vq.image_size
        }
    head = {
        "image_token_embed": c.image_head_width,
        "image_token_size": vq.codebook_size,
        "n_embed": d,
    }
    mlp = {"depth": 2, "n_embed": d, "projector_type": "mlp_gelu"}
    section = lambda cls, kind, params: {"cls": cls, "model_type": kind, "params": params}
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "torch_dtype": dtype,
        "aligner_config": section("MlpProjector", "aligner", mlp | {"input_dim": tower.width}),
        "gen_aligner_config": section(
            "MlpProjector", "gen_aligner", mlp | {"input_dim": vq.code_dim}
        ),
        "gen_head_config": section("vision_head", "gen_head", head),
        "gen_vision_config": section("VQ-16", "gen_vision", drawn),
        "language_config": parts.llama_values(c.transformer, ids, dtype)
        | {"rope_theta": c.transformer.rope_theta},
        "vision_config": section("CLIPVisionTower", "vision", vision),
    }


def unwritable(c: JanusConfig) -> list[str]:
    """What of this config the layout cannot say; sizes it can, see the module's note."""
    return parts.ablated(c) + differences.others(c)
