"""diffusers' VQModel (0.42.1) written down again in torch, with its names of the weights and the fields
of its config.json: what MoVQ's numbers are compared with. A spatial norm's convolutions are computed
at the features' own resolution, as there.
"""

import json

from safetensors.torch import save_file
from support import oracle
from torch import nn
from torch.nn.functional import interpolate, pad, silu

from janus_jax.model.config import GenerationEncoderConfig


class SpatialNorm(nn.Module):
    def __init__(self, channels: int, codes: int):
        super().__init__()
        self.norm_layer = nn.GroupNorm(32, channels, eps=1e-6)
        self.conv_y = nn.Conv2d(codes, channels, 1)
        self.conv_b = nn.Conv2d(codes, channels, 1)

    def forward(self, x, codes):
        codes = interpolate(codes, size=x.shape[-2:], mode="nearest")
        return self.norm_layer(x) * self.conv_y(codes) + self.conv_b(codes)


class GroupNorm(nn.GroupNorm):
    def forward(self, x, codes):
        return super().forward(x)


class Resnet(nn.Module):
    def __init__(self, c_in: int, c_out: int, norm):
        super().__init__()
        self.norm1 = norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        if c_in != c_out:
            self.conv_shortcut = nn.Conv2d(c_in, c_out, 1)

    def forward(self, x, codes):
        h = self.conv1(silu(self.norm1(x, codes)))
        h = self.conv2(silu(self.norm2(h, codes)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, c: int, norm, name: str):
        super().__init__()
        self.add_module(name, norm(c))
        self.name = name
        self.to_q, self.to_k, self.to_v = (nn.Linear(c, c) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(c, c)])

    def forward(self, x, codes):
        h = getattr(self, self.name)(x, codes).flatten(2).mT  # [B, H * W, C]
        weights = (self.to_q(h) @ self.to_k(h).mT * x.shape[1] ** -0.5).softmax(-1)
        return x + self.to_out[0](weights @ self.to_v(h)).mT.reshape(x.shape)


class Block(nn.Module):
    """One resolution. resample: "downsamplers", "upsamplers" or ""."""

    def __init__(self, c_in: int, c_out: int, count: int, norm, attention: str, resample: str):
        super().__init__()
        self.resnets = nn.ModuleList(
            [Resnet(c_out if i else c_in, c_out, norm) for i in range(count)]
        )
        if attention:
            self.attentions = nn.ModuleList(
                [Attention(c_out, norm, attention) for _ in range(count)]
            )
        if resample:
            stride = 2 if resample == "downsamplers" else 1
            conv = nn.Conv2d(c_out, c_out, 3, stride, padding=2 - stride)
            self.add_module(resample, nn.ModuleList([nn.ModuleDict({"conv": conv})]))

    def forward(self, x, codes):
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, codes)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x, codes)
        if hasattr(self, "downsamplers"):
            return self.downsamplers[0]["conv"](pad(x, (0, 1, 0, 1)))
        if hasattr(self, "upsamplers"):
            return self.upsamplers[0]["conv"](interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class Middle(nn.Module):
    def __init__(self, c: int, norm, attention: str):
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(c, c, norm) for _ in range(2)])
        self.attentions = nn.ModuleList([Attention(c, norm, attention)])

    def forward(self, x, codes):
        x = self.attentions[0](self.resnets[0](x, codes), codes)
        return self.resnets[1](x, codes)


class Encoder(nn.Module):
    def __init__(self, c: GenerationEncoderConfig, norm):
        super().__init__()
        widths = [c.channels * m for m in (1, *c.multipliers)]
        last = len(c.multipliers) - 1
        self.conv_in = nn.Conv2d(3, c.channels, 3, padding=1)
        self.down_blocks = nn.ModuleList([
            Block(widths[i], widths[i + 1], c.res_blocks, norm, "group_norm" if i == last else "",
                  "downsamplers" if i < last else "")
            for i in range(last + 1)
        ])  # fmt: skip
        self.mid_block = Middle(widths[-1], norm, "group_norm")
        self.conv_norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], c.z_channels, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in (*self.down_blocks, self.mid_block):
            x = block(x, None)
        return self.conv_out(silu(self.conv_norm_out(x, None)))


class Decoder(nn.Module):
    def __init__(self, c: GenerationEncoderConfig, norm):
        super().__init__()
        widths = [c.channels * m for m in (*c.multipliers, c.multipliers[-1])[::-1]]
        last = len(c.multipliers) - 1
        name = f"{c.decoder_norm}_norm"
        self.conv_in = nn.Conv2d(c.z_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], norm, name)
        self.up_blocks = nn.ModuleList([
            Block(widths[i], widths[i + 1], c.res_blocks + 1, norm, name if i == 0 else "",
                  "upsamplers" if i < last else "")
            for i in range(last + 1)
        ])  # fmt: skip
        self.conv_norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x, codes):
        x = self.conv_in(x)
        for block in (self.mid_block, *self.up_blocks):
            x = block(x, codes)
        return self.conv_out(silu(self.conv_norm_out(x, codes)))


class VqModel(nn.Module):
    def __init__(self, c: GenerationEncoderConfig):
        super().__init__()
        group = lambda channels: GroupNorm(c.norm_groups, channels, eps=1e-6)
        spatial = lambda channels: SpatialNorm(channels, c.code_dim)
        self.encoder = Encoder(c, group)
        self.quant_conv = nn.Conv2d(c.z_channels, c.code_dim, 1)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(c.codebook_size, c.code_dim)})
        self.post_quant_conv = nn.Conv2d(c.code_dim, c.z_channels, 1)
        self.decoder = Decoder(c, spatial if c.decoder_norm == "spatial" else group)

    def encode(self, x):  # [B, 3, H, W] -> latents [B, C, h, w]
        return self.quant_conv(self.encoder(x))

    def nearest(self, z):  # [B, C, h, w] -> ids [B, h, w], by the distance itself, in float64
        codes = self.quantize["embedding"].weight.double()
        apart = z.double().permute(0, 2, 3, 1)[..., None, :] - codes
        return apart.square().sum(-1).argmin(-1)

    def decode(self, ids):  # [B, h, w] -> [B, 3, H, W]
        codes = self.quantize["embedding"](ids).permute(0, 3, 1, 2)
        return self.decoder(self.post_quant_conv(codes), codes)


def their_config(c: GenerationEncoderConfig) -> dict:
    """config.json, as Kandinsky's movq has it."""
    levels = len(c.multipliers)
    return {
        "_class_name": "VQModel", "_diffusers_version": "0.17.0.dev0", "act_fn": "silu",
        "block_out_channels": [c.channels * m for m in c.multipliers],
        "down_block_types": ["DownEncoderBlock2D"] * (levels - 1) + ["AttnDownEncoderBlock2D"],
        "in_channels": 3, "latent_channels": c.z_channels, "layers_per_block": c.res_blocks,
        "norm_num_groups": c.norm_groups, "norm_type": c.decoder_norm,
        "num_vq_embeddings": c.codebook_size, "out_channels": 3, "sample_size": 32,
        "scaling_factor": 0.18215,
        "up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * (levels - 1),
        "vq_embed_dim": c.code_dim,
    }  # fmt: skip


def build(c: GenerationEncoderConfig, seed: int = 0) -> VqModel:
    """With every weight at random."""
    model = VqModel(c).eval().requires_grad_(False)
    oracle.randomise(model, seed)
    return model


def save(directory, c: GenerationEncoderConfig, model: VqModel | None = None, **values):
    """A folder as diffusers writes it; values: of config.json, other than the model's."""
    directory.mkdir(parents=True)
    tensors = {name: x.contiguous() for name, x in (model or build(c)).state_dict().items()}
    save_file(tensors, directory / "diffusion_pytorch_model.safetensors")
    (directory / "config.json").write_text(json.dumps(their_config(c) | values))
    return directory
