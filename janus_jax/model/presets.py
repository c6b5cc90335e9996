"""The sizes of the released models, as the shapes of their state dicts have them, and of small ones that a laptop
trains."""

import dataclasses

from janus_jax.model.config import (
    GenerationEncoderConfig,
    JanusConfig,
    SemanticDecoderConfig,
    TransformerConfig,
    UnderstandingEncoderConfig,
)


def janus_1_3b() -> JanusConfig:
    """Janus-1.3B: 2,076,636,811 parameters (the checkpoint's 2,089,297,547 numbers less the unused
    pooling head, 12,595,200, and the tokenizer's usage buffer, 65,536)."""
    return JanusConfig()


def janus_pro_1b() -> JanusConfig:
    """Janus-Pro-1B: the shapes of Janus-1.3B."""
    return JanusConfig()


def janus_pro_7b() -> JanusConfig:
    """Janus-Pro-7B: 7,407,773,323 parameters, the pooling head and the usage buffer left out
    likewise."""
    transformer = TransformerConfig(width=4096, mlp_width=11008, layers=30, heads=32)
    return JanusConfig(transformer=transformer, image_head_width=4096)


def vq_8() -> GenerationEncoderConfig:
    """LlamaGen's VQ-8 (arXiv 2406.06525, section 2.1): VQ-16 with one level fewer, a picture of 384
    pixels in 2,304 tokens."""
    return GenerationEncoderConfig(multipliers=(1, 2, 2, 4))


def movq_67m() -> GenerationEncoderConfig:
    """MoVQGAN-67M (ai-forever/MoVQGAN), the tokenizer of Kandinsky 2 and 3; 8 pixels a token."""
    return GenerationEncoderConfig(
        multipliers=(1, 2, 2, 4), z_channels=4, code_dim=4, decoder_norm="spatial",
        codebook_l2_norm=False,
    )  # fmt: skip


def movq_270m() -> GenerationEncoderConfig:
    """MoVQGAN-270M (ai-forever/MoVQGAN), twice as wide."""
    return dataclasses.replace(movq_67m(), channels=256)


def quickstart() -> JanusConfig:
    """About a million parameters over 24 x 24 pictures, read as 9 tokens and drawn as 36."""
    return JanusConfig(
        UnderstandingEncoderConfig(
            image_size=24, patch_size=8, width=64, mlp_width=128, layers=2, heads=2
        ),
        GenerationEncoderConfig(
            image_size=24, channels=16, multipliers=(1, 1, 2), res_blocks=1, z_channels=32, norm_groups=8,
            codebook_size=64, code_dim=8,
        ),
        TransformerConfig(width=128, mlp_width=384, layers=3, heads=4, vocabulary=448),
        image_head_width=128,
        dtype="float32",
        remat="none",
    )  # fmt: skip


def emoji() -> JanusConfig:
    """About two million parameters over 32 x 32 pictures of 64 tokens."""
    return JanusConfig(
        UnderstandingEncoderConfig(
            image_size=32, patch_size=4, width=96, mlp_width=192, layers=2, heads=2
        ),
        GenerationEncoderConfig(
            image_size=32, channels=16, multipliers=(1, 2, 4), res_blocks=1, z_channels=64, norm_groups=8,
            codebook_size=512, code_dim=8,
        ),
        TransformerConfig(width=160, mlp_width=480, layers=3, heads=4, vocabulary=1024),
        image_head_width=160,
        dtype="float32",
        remat="none",
    )  # fmt: skip


def miniature() -> JanusConfig:
    """About two million parameters over 64 x 64 pictures of 64 tokens (docs/table5.md)."""
    return JanusConfig(
        UnderstandingEncoderConfig(
            image_size=64, patch_size=8, width=128, mlp_width=256, layers=4, heads=4
        ),
        GenerationEncoderConfig(
            image_size=64, channels=16, multipliers=(1, 2, 2, 4), res_blocks=1, z_channels=64, norm_groups=8,
            codebook_size=512, code_dim=8,
        ),
        TransformerConfig(width=160, mlp_width=448, layers=3, heads=5, vocabulary=512),
        SemanticDecoderConfig(width=128, mlp_width=256, layers=3, heads=4),
        image_head_width=160,
        dtype="float32",
        remat="none",
    )  # fmt: skip


# Understanding encoders, each with the layer that is taken of it (docs/weights.md).


def siglip_l_384() -> UnderstandingEncoderConfig:
    """SigLIP-Large-patch16-384 (arXiv 2303.15343), Janus' own."""
    return UnderstandingEncoderConfig()


def siglip2_so400m_14_384() -> UnderstandingEncoderConfig:
    """SigLIP 2 So400m/14 (arXiv 2502.14786). Its patches see 27 x 14 = 378 of the 384 pixels."""
    return UnderstandingEncoderConfig(
        image_size=378, patch_size=14, width=1152, mlp_width=4304, layers=27, heads=16, activation="gelu_tanh"
    )  # fmt: skip


def siglip2_so400m_16_512() -> UnderstandingEncoderConfig:
    """SigLIP 2 So400m/16 at 512 pixels."""
    return UnderstandingEncoderConfig(
        image_size=512, patch_size=16, width=1152, mlp_width=4304, layers=27, heads=16, activation="gelu_tanh"
    )  # fmt: skip


def clip_l_336() -> UnderstandingEncoderConfig:
    """CLIP ViT-L/14 at 336 pixels (arXiv 2103.00020), the last layer but one, as LLaVA takes it."""
    return UnderstandingEncoderConfig(
        image_size=336, patch_size=14, feature_layer=-2, activation="quick_gelu", norm_eps=1e-5, pixels="clip",
        variant=("class_token", "pre_norm", "no_patch_bias", "no_final_norm"),
    )  # fmt: skip


def internvit_300m_448() -> UnderstandingEncoderConfig:
    """InternViT-300M at 448 pixels (arXiv 2412.05271)."""
    return UnderstandingEncoderConfig(
        image_size=448, patch_size=14, pixels="imagenet", variant=("class_token", "layer_scale", "no_final_norm")
    )  # fmt: skip


def eva02_clip_l_336() -> UnderstandingEncoderConfig:
    """EVA-02-CLIP-L/14 at 336 pixels (arXiv 2303.15389)."""
    return UnderstandingEncoderConfig(
        image_size=336, patch_size=14, mlp_width=2730, activation="swiglu", pixels="clip", rotary_grid=16,
        variant=("class_token", "no_key_bias", "sub_norm"),
    )  # fmt: skip
