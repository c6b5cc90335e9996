"""transformers' layout of Janus (JanusForConditionalGeneration), read and written.

Differences that cost others a day: q, k and v are apart; the text head is at the top level and
untied, while JanusConfig.tie_word_embeddings defaults to true; one width serves the image head and
the language model; the VQ grid is taken from the vision tower's.
"""

from janus_jax.model.config import GenerationEncoderConfig, JanusConfig, UnderstandingEncoderConfig
from janus_jax.weights import differences, parts, vq_parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import Ignored, Layout, Row, compute_dtype, linear, same

KIND = "transformers"
MODEL_TYPES = ("janus",)
NEEDS_CONFIG = True  # its sizes stand in config.json only
IGNORED = (
    Ignored("*.rotary_emb.inv_freq", "rotary frequencies, which follow from the config"),
    Ignored("*.position_ids", "a buffer that counts positions"),
)
FIXED = {  # what our model has no choice in
    "vision_config": {
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "attention_bias": True, "use_qk_norm": False, "depth": 2,
        "num_channels": 3,
    },
    "vq_config": {
        "double_latent": False, "in_channels": 3, "out_channels": 3, "num_hidden_layers": 2, "hidden_act": "gelu",
    },
}  # fmt: skip


def recognises(names) -> bool:
    return any(name.startswith(("model.vision_model.", "model.vqmodel.")) for name in names)


def rows(c: JanusConfig, tied: bool = False) -> list[Row]:
    d = c.transformer.width
    vq = c.generation_encoder
    table = parts.tower_rows(c.understanding_encoder, "model.vision_model.", "projection_layer")
    table += vq_parts.vq_rows(vq, "model.vqmodel.", vq_parts.TRANSFORMERS)
    for ours, theirs, d_in in (
        ("understanding_adaptor", "aligner", c.understanding_encoder.width),
        ("generation_adaptor", "generation_aligner", vq.code_dim),
    ):
        table += linear(f"{ours}.fc1", f"model.{theirs}.fc1", d_in, d)
        table += linear(f"{ours}.fc2", f"model.{theirs}.hidden_layers.0", d, d)
    table += same(
        "generation_embedding.table",
        "model.generation_embeddings.weight",
        vq.codebook_size,
        vq.code_dim,
    )
    table += linear("image_head.fc1", "model.generation_head.proj_out", d, c.image_head_width)
    table += linear(
        "image_head.fc2", "model.generation_head.vision_head", c.image_head_width, vq.codebook_size
    )
    return table + parts.llama_rows(c.transformer, "model.language_model", "lm_head", tied)


def layout(values: dict, tensors: dict) -> Layout:
    """values: its config.json. What it leaves out is as in transformers' classes (5.24)."""
    problems = []
    top = Section(values, "", problems)
    sections = {name: top.section(name) for name in ("text_config", "vision_config", "vq_config")}
    text, vision, vq = sections.values()
    llm = parts.llama_config(text)
    for name, fixed in FIXED.items():
        for key, want in fixed.items():
            sections[name].only(key, want)
    tower = _tower(vision)
    tokenizer = _vq(vq, tower)
    vision.only("projection_dim", llm.width)
    vision.only("num_image_tokens", tower.tokens)
    vq.only("projection_dim", llm.width)
    config = JanusConfig(
        tower, tokenizer, llm, image_head_width=vq.whole("image_token_embed_dim", llm.width),
        dtype=compute_dtype(text.values | top.values, {t.dtype for t in tensors.values()}),
    )  # fmt: skip
    tied = top.flag("tie_word_embeddings", True) and "lm_head.weight" not in tensors
    image_token_id = top.whole("image_token_id", None, low=0)
    parts.known_dtype(top)
    for section, kind in ((top, "janus"), (vision, "janus_vision_model"), (vq, "janus_vqgan")):
        section.only("model_type", kind)
        section.rest()
    return Layout(
        KIND, rows(config, tied), IGNORED, config, tuple(problems), image_token_id=image_token_id
    )


def _tower(v: Section) -> UnderstandingEncoderConfig:
    width = v.whole("hidden_size", 1024)
    sizes = UnderstandingEncoderConfig(
        image_size=_side(v, "image_size", 384), patch_size=_side(v, "patch_size", 16), width=width,
        mlp_width=int(width * v.ratio("mlp_ratio", 4.0)),
        layers=v.count("num_hidden_layers", 24), heads=v.whole("num_attention_heads", 16),
    )  # fmt: skip
    parts.tower_problems(sizes, v, "hidden_size", "num_attention_heads")
    return sizes


def _side(v: Section, name: str, default: int) -> int:
    """A side in pixels; both sides of a square are as good."""
    value = v.get(name)
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        v.values = v.values | {name: value[0]}
    return v.whole(name, default)


def _vq(v: Section, tower: UnderstandingEncoderConfig) -> GenerationEncoderConfig:
    """A picture drawn has as many tokens a side as a picture read."""
    multipliers = v.wholes("channel_multiplier", (1, 1, 2, 2, 4))
    patches = tower.image_size // tower.patch_size
    # The class's own default is 32, which its model replaces by what the tower says.
    v.only("num_patches", patches, 32)
    sizes = GenerationEncoderConfig(
        image_size=patches * 2 ** (len(multipliers) - 1), channels=v.whole("base_channels", 128),
        multipliers=multipliers, res_blocks=v.count("num_res_blocks", 2),
        z_channels=v.whole("latent_channels", 256), norm_groups=32,
        codebook_size=v.whole("num_embeddings", 16384), code_dim=v.whole("embed_dim", 8),
    )  # fmt: skip
    vq_parts.vq_problems(sizes, v, "base_channels", "image_size")
    return sizes


def config_values(c: JanusConfig, dtype: str, ids: dict, image_token_id: int) -> dict:
    """config.json for JanusForConditionalGeneration.from_pretrained."""
    tower = c.understanding_encoder
    vq = c.generation_encoder
    llm = c.transformer
    rope = {"rope_type": "default", "rope_theta": llm.rope_theta}
    return {
        "architectures": ["JanusForConditionalGeneration"], "model_type": "janus", "dtype": dtype,
        "image_token_id": image_token_id, "tie_word_embeddings": False,
        "text_config": {k: v for k, v in parts.llama_values(llm, ids, dtype).items() if k != "torch_dtype"}
        | {"rope_parameters": rope, "dtype": dtype},
        "vision_config": {
            "model_type": "janus_vision_model", "hidden_size": tower.width, "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads, "image_size": tower.image_size, "patch_size": tower.patch_size,
            "mlp_ratio": tower.mlp_width / tower.width, "num_image_tokens": tower.tokens,
            "projection_dim": llm.width, **FIXED["vision_config"],
        },
        "vq_config": {
            "model_type": "janus_vqgan", "embed_dim": vq.code_dim, "num_embeddings": vq.codebook_size,
            "latent_channels": vq.z_channels, "base_channels": vq.channels,
            "channel_multiplier": list(vq.multipliers), "num_res_blocks": vq.res_blocks,
            "projection_dim": llm.width, "image_token_embed_dim": llm.width,
            "num_patches": tower.image_size // tower.patch_size, **FIXED["vq_config"],
        },
    }  # fmt: skip


def unwritable(c: JanusConfig) -> list[str]:
    """What of this config transformers' classes cannot represent."""
    tower = c.understanding_encoder
    vq = c.generation_encoder
    llm = c.transformer
    sides = tower.image_size // tower.patch_size, vq.grid[0]
    checks = (
        (
            vq.norm_groups == 32,
            f"generation_encoder.norm_groups is {vq.norm_groups}; theirs is always 32",
        ),
        (
            c.image_head_width == llm.width,
            f"image_head_width is {c.image_head_width}, transformer.width {llm.width}; theirs are "
            "one number",
        ),
        (
            sides[0] == sides[1],
            f"a picture read is {sides[0]} tokens wide, one drawn {sides[1]}; theirs are equal",
        ),
        (
            int(tower.width * (tower.mlp_width / tower.width)) == tower.mlp_width,
            f"understanding_encoder.mlp_width {tower.mlp_width} is no ratio of width {tower.width}",
        ),
    )
    return parts.ablated(c) + differences.others(c) + [text for fine, text in checks if not fine]
