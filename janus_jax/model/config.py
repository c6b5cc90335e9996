"""The sizes of every box of Figure 2, as frozen dataclasses.

`janus_1_3b`, `janus_pro_1b` and `janus_pro_7b` are the released models (their state dicts' shapes);
`quickstart` and `emoji` are small ones that a laptop trains. No JAX here: the data pipeline reads this too.
"""

import dataclasses
from dataclasses import dataclass

CHILDREN = (
    "text_embedding", "understanding_encoder", "understanding_adaptor", "generation_encoder",
    "generation_embedding", "generation_adaptor", "transformer", "text_head", "image_head",
)  # fmt: skip


@dataclass(frozen=True)
class UnderstandingEncoderConfig:
    """SigLIP (paper section 3.1). Released: SigLIP-Large-patch16-384 without its pooling head."""

    image_size: int = 384
    patch_size: int = 16
    width: int = 1024
    mlp_width: int = 4096
    layers: int = 24
    heads: int = 16

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class GenerationEncoderConfig:
    """The VQ tokenizer of LlamaGen (paper section 3.1): stride 2 ** (levels - 1), `codebook_size` codes."""

    image_size: int = 384
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    z_channels: int = 256
    norm_groups: int = 32
    codebook_size: int = 16384
    code_dim: int = 8

    @property
    def stride(self) -> int:
        return 2 ** (len(self.multipliers) - 1)

    @property
    def grid(self) -> tuple[int, int]:
        return (self.image_size // self.stride,) * 2

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class TransformerConfig:
    """The LLaMA-style language model, its vocabulary included."""

    width: int = 2048
    mlp_width: int = 5632
    layers: int = 24
    heads: int = 16
    vocabulary: int = 102400
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6


@dataclass(frozen=True)
class JanusConfig:
    """All of Figure 2. `dtype` is the compute dtype (weights are kept as they are loaded, float32 in
    training); the VQ tokenizer always computes in float32, so that ids do not depend on it. `remat` says
    what the layer scan keeps for the backward pass: `full` recomputes all, `dots` keeps matrix products,
    `none` keeps everything. `attention` is how packed rows attend in training, a kind of
    `model.attention` or `auto`, the devices' own; all give the same numbers."""

    understanding_encoder: UnderstandingEncoderConfig = UnderstandingEncoderConfig()
    generation_encoder: GenerationEncoderConfig = GenerationEncoderConfig()
    transformer: TransformerConfig = TransformerConfig()
    image_head_width: int = 2048
    dtype: str = "bfloat16"
    remat: str = "dots"
    attention: str = "auto"


def janus_1_3b() -> JanusConfig:
    """Janus-1.3B: 2,076,636,811 parameters (the checkpoint's 2,089,297,547 numbers less the unused pooling
    head, 12,595,200, and the tokenizer's usage buffer, 65,536)."""
    return JanusConfig()


def janus_pro_1b() -> JanusConfig:
    """Janus-Pro-1B: the shapes of Janus-1.3B."""
    return JanusConfig()


def janus_pro_7b() -> JanusConfig:
    """Janus-Pro-7B: 7,407,773,323 parameters, the pooling head and the usage buffer left out likewise."""
    transformer = TransformerConfig(width=4096, mlp_width=11008, layers=30, heads=32)
    return JanusConfig(transformer=transformer, image_head_width=4096)


def quickstart() -> JanusConfig:
    """About a million parameters over 24 x 24 pictures of 36 tokens."""
    return JanusConfig(
        UnderstandingEncoderConfig(
            image_size=24, patch_size=4, width=64, mlp_width=128, layers=2, heads=2
        ),
        GenerationEncoderConfig(
            image_size=24, channels=16, multipliers=(1, 1, 2), res_blocks=1, z_channels=32, norm_groups=8,
            codebook_size=128, code_dim=8,
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


def to_dict(config: JanusConfig) -> dict:
    """Plain nested dict (JSON, ConfigDict)."""
    return dataclasses.asdict(config)


def from_dict(values: dict) -> JanusConfig:
    """The inverse of `to_dict`; lists become tuples. Unknown names raise TypeError by name."""
    values = dict(values)
    boxes = {
        "understanding_encoder": UnderstandingEncoderConfig,
        "generation_encoder": GenerationEncoderConfig,
        "transformer": TransformerConfig,
    }
    for name, box in boxes.items():
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()}
        values[name] = box(**fields)
    return JanusConfig(**values)


def differences(old: dict, new: dict, path: str = "") -> list[str]:
    """Lines "field: old -> new" for every field in which two plain configs differ."""
    out = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, f"{path}{key}.")
        elif a != b:
            out.append(f"{path}{key}: {a!r} -> {b!r}")
    return out
