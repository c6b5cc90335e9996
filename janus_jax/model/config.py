"""The sizes of every box of Figure 2, as frozen dataclasses; presets.py has the released models'.

No JAX here: the data pipeline reads this too.
"""

from dataclasses import asdict, dataclass, field

FREE = {"resume": "free"}  # of a field that changes how a run computes, not what it learns
ATTENTION = ("auto", "plain", "blockwise", "splash", "triton", "cudnn")  # see model/attention.py
CHILDREN = (
    "text_embedding", "understanding_encoder", "understanding_adaptor", "generation_encoder",
    "generation_embedding", "generation_adaptor", "transformer", "text_head", "image_head",
    "semantic_decoder", "pooling_head", "text_tower", "contrast", "detector",
)  # fmt: skip
# In what an understanding encoder may differ from SigLIP; the words are in config/sizes.py.
DIFFERENCES = ("feature_layer", "activation", "norm_eps", "pixels", "rotary_grid", "variant")
# Fields, by box, that are not written where they are as here: files of before know them by no name.
LEFT_OUT = {
    "": {
        "drawing": "causal", "senses": {}, "image_head": "softmax", "image_head_layers": 3,
        "denoising_steps": 100,
    },
    "understanding_encoder": {"tiles": 1, "tiling": "internvl", "pixel_shuffle": 1},
    "generation_encoder": {
        "decoder_norm": "group", "codebook_l2_norm": True, "sizes": (), "latent": "vq", "latent_scale": 1.0,
        "depth": 1, "scales": (),
    },
}  # fmt: skip
# Likewise, of data sets' lines and of `evaluation`.
OF_LINES = {"target": "", "source_ids": 0.5, "edit_dropout": (0.05,) * 3, "at_start": False}
_USUAL = [field for box in (*LEFT_OUT.values(), OF_LINES) for field in box.items()]


@dataclass(frozen=True)
class UnderstandingEncoderConfig:
    """A ViT: SigLIP-Large-patch16-384 without its pooling head (paper section 3.1). Other encoders have
    DIFFERENCES (docs/weights.md): the layer whose output is taken, -1 the last; how `pixels` are
    normalised; the grid's side that 2-D rotary embeddings are for, 0 without; words of `variant`."""

    image_size: int = 384
    patch_size: int = 16
    width: int = 1024
    mlp_width: int = 4096
    layers: int = 24
    heads: int = 16
    feature_layer: int = -1
    activation: str = "gelu"
    norm_eps: float = 1e-6
    pixels: str = "siglip"
    rotary_grid: int = 0
    variant: tuple[str, ...] = ()
    # A picture becomes up to `tiles` tiles and, where it has several, an overview, cut by the rule
    # `tiling` (data/tiles.py); of each, `pixel_shuffle` patches a side are joined in one token.
    tiles: int = 1
    tiling: str = "internvl"
    pixel_shuffle: int = 1
    # Of a tile: patches, and tokens as they are read; of a picture at most: tiles, the overview too.
    patches = property(lambda self: (self.image_size // self.patch_size) ** 2)
    tokens = property(lambda self: (self.image_size // self.patch_size // self.pixel_shuffle) ** 2)
    pieces = property(lambda self: self.tiles + (self.tiles > 1))
    depth = property(lambda self: self.layers + 1 + self.feature_layer)  # layers that are computed


@dataclass(frozen=True)
class GenerationEncoderConfig:
    """The VQ tokenizer of LlamaGen (paper section 3.1): stride 2 ** (levels - 1), `codebook_size`
    codes. MoVQ's has a decoder with `spatial` norms, and codes of any length (`codebook_l2_norm`).
    `sizes`: of pictures that are drawn besides squares of `image_size`, "WxH" in pixels.
    `latent` "kl": AutoencoderKL, vectors of `code_dim` times `latent_scale` in place of codes.
    `scales`: sides of the grids of a picture's ids where `drawing` is "scales", the last the whole."""

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
    sizes: tuple[str, ...] = ()
    latent: str = "vq"
    latent_scale: float = 1.0
    depth: int = 1  # codes of a token, whose sum stands for it (RQ-VAE, arXiv 2203.01941)
    scales: tuple[int, ...] = ()
    stride = property(lambda self: 2 ** (len(self.multipliers) - 1))
    grid = property(lambda self: (self.image_size // self.stride,) * 2)
    tokens = property(lambda self: sum(n * n for n in self.scales) or self.grid[0] * self.grid[1])

    @property
    def all_sizes(self) -> list[tuple[int, int]]:  # (width, height), the square first
        return [(self.image_size,) * 2, *(tuple(map(int, x.split("x"))) for x in self.sizes)]

    @property
    def most_tokens(self) -> int:
        return max(self.tokens, *(x * y // self.stride**2 for x, y in self.all_sizes))


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
    """All of Figure 2. `dtype` is the compute dtype (weights stay as they are loaded, float32 in
    training); the VQ tokenizer always computes in float32, so that ids do not depend on it. `remat`:
    the backward pass computes all anew (`full`), or has matrix products (`dots`) or all (`none`)
    kept. `attention`: a kind of model/attention.py, which all give the same numbers. `understanding`:
    whose features of a picture are understood, SigLIP's (or another ViT's), the VQ codes, or the
    semantic decoder's on these. `generation`: how ids are read back, `embedding` (Janus), or so.
    `drawing`: ids one after the other (`causal`), all that are `masked` at once, each token of a
    picture seeing all of it (MaskGIT, arXiv 2202.04200), or those of one of its `scales` at once, coarse
    to fine, each seeing the coarser ones and its own (VAR, arXiv 2404.02905). `senses`: the sizes of
    further ones by name, each a folder of model/senses. `image_head`: "softmax" over ids, "depth" over
    the codes of a token in turn, or "diffusion" of latents, drawn in so many `denoising_steps`."""

    understanding_encoder: UnderstandingEncoderConfig = UnderstandingEncoderConfig()
    generation_encoder: GenerationEncoderConfig = GenerationEncoderConfig()
    transformer: TransformerConfig = TransformerConfig()
    semantic_decoder: SemanticDecoderConfig = SemanticDecoderConfig()
    understanding: str = "siglip"
    generation: str = "embedding"
    drawing: str = "causal"
    image_head_width: int = 2048
    image_head: str = "softmax"
    image_head_layers: int = 3
    denoising_steps: int = 100
    dtype: str = "bfloat16"
    remat: str = field(default="dots", metadata=FREE)
    attention: str = field(default="auto", metadata=FREE)
    senses: dict[str, dict[str, int]] = field(default_factory=dict, hash=False)

    @property
    def is_janus(self) -> bool:
        """Whether its adaptors read what Janus' do, and its heads predict tokens."""
        read = self.understanding, self.generation, self.image_head
        return read == ("siglip", "embedding", "softmax") and self.drawing != "scales"

    @property
    def children(self) -> tuple[str, ...]:
        """Those of CHILDREN that this model has, then its senses'."""
        has = dict.fromkeys(CHILDREN[-4:], False) | {  # those are of the tasks siglip and detector
            "understanding_encoder": self.understanding == "siglip",
            "generation_embedding": self.generation == "embedding"
            and self.image_head != "diffusion"
            and self.drawing != "scales",  # which reads the tokenizer's own codes
            "semantic_decoder": "semantic" in (self.understanding, self.generation),
        }
        more = (f"{name}_{box}" for name in sorted(self.senses) for box in ("encoder", "adaptor"))
        return *(name for name in CHILDREN if has.get(name, True)), *more

    @property
    def read_widths(self) -> tuple[int, int]:
        """Of the features that the understanding and the generation adaptor read."""
        codes = self.generation_encoder.code_dim
        semantic = self.semantic_decoder.width
        tower = self.understanding_encoder
        seen = {"siglip": tower.width * tower.pixel_shuffle**2, "vq": codes, "semantic": semantic}
        return seen[self.understanding], codes if self.generation == "embedding" else semantic


def to_dict(config) -> dict:
    """Plain nested dict (JSON, ConfigDict) of a dataclass, without what is LEFT_OUT."""
    return asdict(config, dict_factory=lambda fields: dict(x for x in fields if x not in _USUAL))
