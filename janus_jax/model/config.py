"""The sizes of every box of Figure 2, as frozen dataclasses; presets.py has the released models'.

No JAX here: the data pipeline reads this too.
"""

import dataclasses
from dataclasses import dataclass

FREE = {"resume": "free"}  # of a field that changes how a run computes, not what it learns
# Kinds of model/attention.py.
ATTENTION = ("auto", "plain", "blockwise", "splash", "triton", "cudnn")
REMAT = ("full", "dots", "none")  # what layers keep for the backward pass, see model/layers.py
CHILDREN = (
    "text_embedding", "understanding_encoder", "understanding_adaptor", "generation_encoder",
    "generation_embedding", "generation_adaptor", "transformer", "text_head", "image_head",
    "semantic_decoder", "pooling_head", "text_tower", "contrast", "detector",
)  # fmt: skip
# What the two adaptors may read (the paper's ablations, Table 5).
UNDERSTANDING = ("siglip", "vq", "semantic")
GENERATION = ("embedding", "semantic")
NORMS = ("group", "spatial")  # of the image decoder
# Fields that are not written where they are as here: files of before know them by no name.
LEFT_OUT = {"decoder_norm": "group", "codebook_l2_norm": True}.items()


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
    """The VQ tokenizer of LlamaGen (paper section 3.1): stride 2 ** (levels - 1), `codebook_size`
    codes. MoVQ's has a decoder with `spatial` norms, and codes of any length (`codebook_l2_norm`)."""

    image_size: int = 384
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    res_blocks: int = 2
    z_channels: int = 256
    norm_groups: int = 32
    codebook_size: int = 16384
    code_dim: int = 8
    decoder_norm: str = "group"
    codebook_l2_norm: bool = True

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
class SemanticDecoderConfig:
    """The causal ViT on the tokenizer's codes (appendix A of the paper)."""

    width: int = 768
    mlp_width: int = 3072
    layers: int = 12
    heads: int = 12


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
    """All of Figure 2. `dtype` is the compute dtype (weights are kept as they are loaded, float32
    in training); the VQ tokenizer always computes in float32, so that ids do not depend on it.
    `remat` says what the layer scan keeps for the backward pass: `full` recomputes all, `dots` keeps
    matrix products, `none` keeps everything. `attention` is how packed rows attend in training, a
    kind of `model.attention` or `auto`, the devices' own; all give the same numbers.

    `understanding` says whose features of a picture are understood: SigLIP's (Janus), the VQ
    tokenizer's codes, or those of the semantic decoder on these. `generation` says what of the image
    ids drawn so far is read: their own `embedding` (Janus), or the semantic decoder's features."""

    understanding_encoder: UnderstandingEncoderConfig = UnderstandingEncoderConfig()
    generation_encoder: GenerationEncoderConfig = GenerationEncoderConfig()
    transformer: TransformerConfig = TransformerConfig()
    semantic_decoder: SemanticDecoderConfig = SemanticDecoderConfig()
    understanding: str = "siglip"
    generation: str = "embedding"
    image_head_width: int = 2048
    dtype: str = "bfloat16"
    remat: str = dataclasses.field(default="dots", metadata=FREE)
    attention: str = dataclasses.field(default="auto", metadata=FREE)

    @property
    def is_janus(self) -> bool:
        """Whether its adaptors read what Janus' do."""
        return (self.understanding, self.generation) == ("siglip", "embedding")

    @property
    def children(self) -> tuple[str, ...]:
        """Those of CHILDREN that this model has."""
        # of the tasks siglip and detector alone
        has = dict.fromkeys(("pooling_head", "text_tower", "contrast", "detector"), False) | {
            "understanding_encoder": self.understanding == "siglip",
            "generation_embedding": self.generation == "embedding",
            "semantic_decoder": "semantic" in (self.understanding, self.generation),
        }
        return tuple(name for name in CHILDREN if has.get(name, True))

    @property
    def read_widths(self) -> tuple[int, int]:
        """Of the features that the understanding and the generation adaptor read."""
        codes = self.generation_encoder.code_dim
        semantic = self.semantic_decoder.width
        seen = {"siglip": self.understanding_encoder.width, "vq": codes, "semantic": semantic}
        drawn = {"embedding": codes, "semantic": semantic}
        return seen[self.understanding], drawn[self.generation]


def to_dict(config) -> dict:
    """Plain nested dict (JSON, ConfigDict) of a dataclass, without what is LEFT_OUT."""
    said = lambda fields: dict(field for field in fields if field not in LEFT_OUT)
    return dataclasses.asdict(config, dict_factory=said)
