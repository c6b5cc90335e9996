"""transformers' layout of Janus (JanusForConditionalGeneration), read and written.

Differences that cost others a day: q, k and v are apart; the text head is at the top level and untied, while
JanusConfig.tie_word_embeddings defaults to true; one width serves the image head and the language model; the
VQ grid is taken from the vision tower's.
"""

from janus_jax.convert import parts
from janus_jax.convert.table import Ignored, Plan, Row, compute_dtype, linear, same
from janus_jax.model.config import GenerationEncoderConfig, JanusConfig, UnderstandingEncoderConfig

KIND = "transformers"
IGNORED = (
    Ignored("*.rotary_emb.inv_freq", "rotary frequencies, which follow from the config"),
    Ignored("*.position_ids", "a buffer that counts positions"),
)
VISION = {  # defaults of transformers' JanusVisionConfig (5.23)
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 384,
    "patch_size": 16, "mlp_ratio": 4.0, "hidden_act": "gelu", "layer_norm_eps": 1e-6, "attention_bias": True,
    "use_qk_norm": False, "depth": 2, "num_channels": 3,
}  # fmt: skip
VQ = {  # defaults of its JanusVQVAEConfig
    "embed_dim": 8, "num_embeddings": 16384, "latent_channels": 256, "base_channels": 128,
    "channel_multiplier": (1, 1, 2, 2, 4), "num_res_blocks": 2, "double_latent": False, "in_channels": 3,
    "out_channels": 3, "num_hidden_layers": 2, "hidden_act": "gelu",
}  # fmt: skip
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
    d, vq = c.transformer.width, c.generation_encoder
    table = parts.tower_rows(c.understanding_encoder, "model.vision_model.", "projection_layer")
    table += parts.vq_rows(vq, "model.vqmodel.", parts.TRANSFORMERS)
    for ours, theirs, d_in in (
        ("understanding_adaptor", "aligner", c.understanding_encoder.width),
        ("generation_adaptor", "generation_aligner", vq.code_dim),
    ):
        table += linear(f"{ours}.fc1", f"model.{theirs}.fc1", d_in, d)
        table += linear(f"{ours}.fc2", f"model.{theirs}.hidden_layers.0", d, d)
    table += same(
        "generation_embedding.table", "model.generation_embeddings.weight", vq.codebook_size, vq.code_dim
    )
    table += linear("image_head.fc1", "model.generation_head.proj_out", d, c.image_head_width)
    table += linear(
        "image_head.fc2", "model.generation_head.vision_head", c.image_head_width, vq.codebook_size
    )
    return table + parts.llama_rows(c.transformer, "model.language_model", "lm_head", tied)


def plan(values: dict, tensors: dict) -> Plan:
    """values: its config.json."""
    text = values.get("text_config", {})
    vision, vq = VISION | values.get("vision_config", {}), VQ | values.get("vq_config", {})
    llm, problems = parts.llama_config(text, "text_config.")
    for name, section in (("vision_config", vision), ("vq_config", vq)):
        problems += [
            f"{name}.{key} is {section[key]!r}; this model can only be {want!r}"
            for key, want in FIXED[name].items()
            if section[key] != want
        ]
    tower = UnderstandingEncoderConfig(
        image_size=vision["image_size"], patch_size=vision["patch_size"], width=vision["hidden_size"],
        mlp_width=int(vision["hidden_size"] * vision["mlp_ratio"]), layers=vision["num_hidden_layers"],
        heads=vision["num_attention_heads"],
    )  # fmt: skip
    multipliers = tuple(vq["channel_multiplier"])
    side = tower.image_size // tower.patch_size * 2 ** (len(multipliers) - 1)
    tokenizer = GenerationEncoderConfig(
        image_size=side, channels=vq["base_channels"], multipliers=multipliers,
        res_blocks=vq["num_res_blocks"], z_channels=vq["latent_channels"], norm_groups=32,
        codebook_size=vq["num_embeddings"], code_dim=vq["embed_dim"],
    )  # fmt: skip
    config = JanusConfig(
        tower, tokenizer, llm, image_head_width=vq.get("image_token_embed_dim", llm.width),
        dtype=compute_dtype(text | values, {t.dtype for t in tensors.values()}),
    )  # fmt: skip
    tied = values.get("tie_word_embeddings", True) and "lm_head.weight" not in tensors
    image_token_id = values.get("image_token_id")
    return Plan(KIND, rows(config, tied), IGNORED, config, tuple(problems), image_token_id=image_token_id)


def config_values(c: JanusConfig, dtype: str, ids: dict, image_token_id: int) -> dict:
    """config.json for JanusForConditionalGeneration.from_pretrained."""
    tower, vq, llm = c.understanding_encoder, c.generation_encoder, c.transformer
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
    tower, vq, llm = c.understanding_encoder, c.generation_encoder, c.transformer
    sides = tower.image_size // tower.patch_size, vq.grid[0]
    checks = (
        (vq.norm_groups == 32, f"generation_encoder.norm_groups is {vq.norm_groups}; theirs is always 32"),
        (
            c.image_head_width == llm.width,
            f"image_head_width is {c.image_head_width}, transformer.width {llm.width}; theirs are one number",
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
    return [text for fine, text in checks if not fine]
