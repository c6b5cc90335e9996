"""diffusers' AutoencoderKL (0.42.1) written down again in torch, with its names of the weights and the
fields of its config.json: what a KL tokenizer's numbers are compared with."""

import json

import torch
from safetensors.torch import save_file
from support import oracle
from support.vqmodel import Block, GroupNorm, Middle
from torch import nn
from torch.nn.functional import silu

from janus_jax.model.config import GenerationEncoderConfig


class Half(nn.Module):
    """The encoder or the decoder: `blocks` names its levels."""

    def __init__(self, c: GenerationEncoderConfig, blocks: str, c_in: int, c_out: int):
        super().__init__()
        down = blocks == "down_blocks"
        norm = lambda channels: GroupNorm(c.norm_groups, channels, eps=1e-6)
        m = c.multipliers if down else c.multipliers[::-1]
        widths = [c.channels * k for k in ((1, *m) if down else (m[0], *m))]
        last = len(m) - 1
        resample = "downsamplers" if down else "upsamplers"
        self.conv_in = nn.Conv2d(c_in, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[-1] if down else widths[0], norm, "group_norm")
        levels = [
            Block(
                widths[i], widths[i + 1], c.res_blocks + (not down), norm, "", resample * (i < last)
            )
            for i in range(last + 1)
        ]
        self.add_module(blocks, nn.ModuleList(levels))
        self.order = [*levels, self.mid_block] if down else [self.mid_block, *levels]
        self.conv_norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], c_out, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for block in self.order:
            x = block(x, None)
        return self.conv_out(silu(self.conv_norm_out(x, None)))


class KlModel(nn.Module):
    def __init__(self, c: GenerationEncoderConfig):
        super().__init__()
        z = c.code_dim
        self.encoder = Half(c, "down_blocks", 3, 2 * z)
        self.decoder = Half(c, "up_blocks", z, 3)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1)
        self.post_quant_conv = nn.Conv2d(z, z, 1)

    def moments(self, x):  # [B, 3, H, W] -> mean, log variance, each [B, C, h, w]
        mean, log_variance = torch.chunk(self.quant_conv(self.encoder(x)), 2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def decode(self, z):  # [B, C, h, w] -> [B, 3, H, W]
        return self.decoder(self.post_quant_conv(z))


def their_config(c: GenerationEncoderConfig) -> dict:
    """config.json, as Stable Diffusion's vae has it."""
    levels = len(c.multipliers)
    return {
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.4.2", "act_fn": "silu",
        "block_out_channels": [c.channels * m for m in c.multipliers],
        "down_block_types": ["DownEncoderBlock2D"] * levels, "in_channels": 3,
        "latent_channels": c.code_dim, "layers_per_block": c.res_blocks,
        "norm_num_groups": c.norm_groups, "out_channels": 3, "sample_size": 512,
        "scaling_factor": c.latent_scale, "up_block_types": ["UpDecoderBlock2D"] * levels,
    }  # fmt: skip


def build(c: GenerationEncoderConfig, seed: int = 0) -> KlModel:
    """With every weight at random."""
    model = KlModel(c).eval().requires_grad_(False)
    oracle.randomise(model, seed)
    return model


def save(directory, c: GenerationEncoderConfig, model=None, rename=lambda name: name, **values):
    """A folder as diffusers writes it; values: of config.json, other than the model's."""
    directory.mkdir(parents=True)
    tensors = {rename(k): x.contiguous() for k, x in (model or build(c)).state_dict().items()}
    save_file(tensors, directory / "diffusion_pytorch_model.safetensors")
    (directory / "config.json").write_text(json.dumps(their_config(c) | values))
    return directory
