"""The tokenizer of continuous latents: AutoencoderKL (latent diffusion, arXiv 2112.10752, section 3.1;
diffusers' models/autoencoders/autoencoder_kl.py), which MAR (arXiv 2406.11838) draws with.

The VQ tokenizer's network but for three things: it attends in the middle alone, its encoder gives a
mean and a log variance for each latent, and between the halves stands no codebook.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import Conv, VqDecoder, VqEncoder

LOG_VARIANCE = -30.0, 20.0  # the least and the most, as there


class KlTokenizer(nnx.Module):
    """Pictures to latents and back, in float32. C is the config's `code_dim`."""

    def __init__(self, config: GenerationEncoderConfig, rngs: nnx.Rngs):
        c = config.code_dim
        moments = dataclasses.replace(config, z_channels=2 * config.z_channels)
        self.encoder = VqEncoder(moments, rngs, deep=False)
        self.quant_conv = Conv(2 * config.z_channels, 2 * c, rngs, size=1)
        self.post_quant_conv = Conv(c, config.z_channels, rngs, size=1)
        self.decoder = VqDecoder(config, rngs, deep=False)
        self.scale = config.latent_scale

    def moments(self, images):  # [B, H, W, 3] in [-1, 1] -> mean, log variance, each [B, h, w, C]
        mean, log_variance = jnp.split(
            self.quant_conv(self.encoder(images.astype(jnp.float32))), 2, axis=-1
        )
        return mean, jnp.clip(log_variance, *LOG_VARIANCE)

    def features(self, z):  # [B, h, w, C], not scaled -> what the decoder's last convolution reads
        return self.decoder.features(self.post_quant_conv(z), z)

    def render(self, z):  # [B, h, w, C], not scaled -> [B, H, W, 3], about [-1, 1] but not clipped
        return self.decoder.conv_out(self.features(z))

    def encode(self, images):  # [B, H, W, 3] in [-1, 1] -> latents [B, N, C], raster order
        """The means, times the scale: what a transformer reads and a head predicts. (MAR draws around
        the means; the spread of a trained tokenizer is small, and so nothing is left to chance.)"""
        mean, _ = self.moments(images)
        return self.scale * mean.reshape(len(mean), -1, mean.shape[-1])

    def decode(self, latents, grid):  # [B, N, C], (rows, columns) -> [B, H, W, 3]
        z = latents.reshape(latents.shape[0], *grid, latents.shape[-1]) / self.scale
        return self.render(z)
