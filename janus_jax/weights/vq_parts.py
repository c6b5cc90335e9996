"""The rows and sizes of a VQ tokenizer, or of a KL one, that several sources share."""

import dataclasses

from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.weights.settings import Section
from janus_jax.weights.table import (
    Row,
    Transform,
    by_direction,
    conv,
    count,
    decoder_norm,
    norm,
    same,
    tokenizer_kind,
)


@dataclasses.dataclass(frozen=True)
class Naming:
    """What copies of the VQ network call the same boxes. `linear`: its attention has linear maps
    where ours has 1x1 convolutions."""

    down: str
    up: str
    res: str
    mid: tuple[str, str, str]
    attn: str = "attn"
    attn_norms: tuple[str, str] = ("norm", "norm")  # a group norm, a spatial one
    maps: tuple[str, str, str, str] = ("q", "k", "v", "proj_out")
    linear: bool = False
    downsample: str = "downsample"
    upsample: str = "upsample"
    shortcut: str = "nin_shortcut"
    norm_out: str = "norm_out"


LLAMAGEN = Naming("conv_blocks", "conv_blocks", "res", ("mid.0", "mid.1", "mid.2"))
TRANSFORMERS = Naming("down", "up", "block", ("mid.block_1", "mid.attn_1", "mid.block_2"))
DIFFUSERS = Naming(
    "down_blocks", "up_blocks", "resnets",
    ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    attn="attentions", attn_norms=("group_norm", "spatial_norm"),
    maps=("to_q", "to_k", "to_v", "to_out.0"), linear=True,
    downsample="downsamplers.0", upsample="upsamplers.0", shortcut="conv_shortcut",
    norm_out="conv_norm_out",
)  # fmt: skip
AS_CONV = Transform(lambda x: x.T[None, None], lambda y, shape: y[0, 0].T)  # [out, in], HWIO


def vq_problems(c: GenerationEncoderConfig, v: Section, channels: str, side: str) -> None:
    """Tells of sizes that do not go together. channels, side: their names of these fields."""
    if c.channels % c.norm_groups:
        v.problems.append(
            f"{v.where}{channels} is {c.channels}: {c.norm_groups} norm groups do not divide it"
        )
    if c.image_size % c.stride:
        v.problems.append(
            f"{v.where}{side} is {c.image_size}: the stride, {c.stride}, does not divide it"
        )


def vq_rows(c: GenerationEncoderConfig, theirs: str, naming: Naming) -> list[Row]:
    """theirs: the prefix, with its dot. Levels and blocks stand in the order of computation in
    both. A KL tokenizer has means and variances, attention in the middle alone, and no codebook."""
    a = "generation_encoder"
    m = c.multipliers
    vq = c.latent == "vq"
    z = c.z_channels if vq else 2 * c.z_channels
    widths = [c.channels * k for k in (1, *m)]
    rows = _half(
        f"{a}.encoder", f"{theirs}encoder", widths, c.res_blocks, naming, down=True, attends=vq
    )
    rows += conv(f"{a}.encoder.conv_in", f"{theirs}encoder.conv_in", 3, c.channels)
    rows += conv(f"{a}.encoder.conv_out", f"{theirs}encoder.conv_out", widths[-1], z)
    widths = [c.channels * k for k in (m[-1], *m[::-1])]
    codes = c.code_dim if c.decoder_norm == "spatial" else 0
    blocks = c.res_blocks + 1
    rows += _half(
        f"{a}.decoder", f"{theirs}decoder", widths, blocks, naming, codes, down=False, attends=vq
    )
    rows += conv(f"{a}.decoder.conv_in", f"{theirs}decoder.conv_in", c.z_channels, widths[0])
    rows += conv(f"{a}.decoder.conv_out", f"{theirs}decoder.conv_out", widths[-1], 3)
    codebook = same(
        f"{a}.codebook", f"{theirs}quantize.embedding.weight", c.codebook_size, c.code_dim
    )
    rows += codebook if vq else []
    moments = c.code_dim if vq else 2 * c.code_dim
    rows += conv(f"{a}.quant_conv", f"{theirs}quant_conv", z, moments, 1)
    return rows + conv(
        f"{a}.post_quant_conv", f"{theirs}post_quant_conv", c.code_dim, c.z_channels, 1
    )


def _half(
    a: str, b: str, widths: list[int], blocks: int, naming: Naming, codes: int = 0, *, down: bool,
    attends: bool,
) -> list[Row]:  # fmt: skip
    """codes: the width of the codes that its norms read, 0 for group norms."""
    rows = []
    last = len(widths) - 2
    for i in range(last + 1):
        level = f"{a}.levels.{i}"
        theirs = f"{b}.{naming.down if down else naming.up}.{i}"
        for j in range(blocks):
            w_in = widths[i] if j == 0 else widths[i + 1]
            block = f"{theirs}.{naming.res}.{j}"
            rows += _res(f"{level}.res.{j}", block, w_in, widths[i + 1], naming, codes)
            if attends and i == (last if down else 0):
                block = f"{theirs}.{naming.attn}.{j}"
                rows += _attn(f"{level}.attn.{j}", block, widths[i + 1], naming, codes)
        if i < last:
            resample = f"{theirs}.{naming.downsample if down else naming.upsample}.conv"
            rows += conv(f"{level}.resample", resample, widths[i + 1], widths[i + 1])
    deepest = widths[-1] if down else widths[0]
    first, middle, second = (f"{b}.{name}" for name in naming.mid)
    rows += _res(f"{a}.mid.0", first, deepest, deepest, naming, codes)
    rows += _attn(f"{a}.mid.1", middle, deepest, naming, codes)
    rows += _res(f"{a}.mid.2", second, deepest, deepest, naming, codes)
    return rows + _norm(f"{a}.norm_out", f"{b}.{naming.norm_out}", widths[-1], codes)


def _norm(a: str, b: str, width: int, codes: int) -> list[Row]:
    if not codes:
        return norm(a, b, width)
    rows = norm(a, f"{b}.norm_layer", width) + conv(f"{a}.gamma", f"{b}.conv_y", codes, width, 1)
    return rows + conv(f"{a}.beta", f"{b}.conv_b", codes, width, 1)


def _res(a: str, b: str, w_in: int, w_out: int, naming: Naming, codes: int) -> list[Row]:
    rows = _norm(f"{a}.norm1", f"{b}.norm1", w_in, codes)
    rows += conv(f"{a}.conv1", f"{b}.conv1", w_in, w_out)
    rows += _norm(f"{a}.norm2", f"{b}.norm2", w_out, codes)
    rows += conv(f"{a}.conv2", f"{b}.conv2", w_out, w_out)
    if w_in == w_out:
        return rows
    return rows + conv(f"{a}.shortcut", f"{b}.{naming.shortcut}", w_in, w_out, 1)


def _attn(a: str, b: str, width: int, naming: Naming, codes: int) -> list[Row]:
    group, spatial = naming.attn_norms
    rows = _norm(f"{a}.norm", f"{b}.{spatial if codes else group}", width, codes)
    for ours, theirs in zip(("q", "k", "v", "proj"), naming.maps):
        kernel, bias = conv(f"{a}.{ours}", f"{b}.{theirs}", width, width, 1)
        if naming.linear:
            kernel = dataclasses.replace(kernel, shape=(width, width), transform=AS_CONV)
        rows += [kernel, bias]
    return rows


def vq_sizes(shapes: dict[str, tuple], unshaped: dict) -> GenerationEncoderConfig:
    """The sizes of a tokenizer; its image_size, which no convolution knows, is the default.

    shapes: of our leaves, those of other children too.
    unshaped: `WeightReader.unshaped`.
    Raises ValueError where there is no tokenizer among them, or its norm_groups are not known.
    """
    a = "generation_encoder"
    levels = count(shapes, rf"{a}\.encoder\.levels\.(\d+)\.")
    latent = tokenizer_kind(shapes)
    if not levels or not latent:
        raise ValueError(f"holds no VQ tokenizer ({a})")
    groups = unshaped.get(f"{a}.norm_groups")
    if groups is None:
        raise ValueError(
            "a VQ tokenizer that does not say its norm_groups, on which all that it computes depends "
            "(they stand in the manifest.json that was written beside the weights)"
        )
    channels = shapes[f"{a}.encoder.conv_in.kernel"][3]
    firsts = [shapes[f"{a}.encoder.levels.{i}.res.0.conv1.kernel"][3] for i in range(levels)]
    # Of a KL tokenizer, which has no codes, a size that nothing reads.
    codes = shapes.get(f"{a}.codebook", (GenerationEncoderConfig.codebook_size,))[0]
    _, _, code_dim, z_channels = shapes[f"{a}.post_quant_conv.kernel"]
    return GenerationEncoderConfig(
        channels=channels, multipliers=tuple(width // channels for width in firsts),
        res_blocks=count(shapes, rf"{a}\.encoder\.levels\.0\.res\.(\d+)\."),
        z_channels=z_channels, norm_groups=groups, latent=latent,
        latent_scale=unshaped.get(f"{a}.latent_scale", 1.0),
        codebook_size=codes, code_dim=code_dim, decoder_norm=decoder_norm(shapes),
        codebook_l2_norm=by_direction(unshaped), depth=int(unshaped.get(f"{a}.depth", 1)),
        scales=tuple(map(int, unshaped.get(f"{a}.scales", "").split())),
    )  # fmt: skip
