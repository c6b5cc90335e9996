"""The leaves of a model that draws scale by scale, which only this project's own layout has."""

from janus_jax.model.config import GenerationEncoderConfig, JanusConfig
from janus_jax.model.multiscale import PHIS
from janus_jax.weights.table import conv


def tokenizer_shapes(vq: GenerationEncoderConfig) -> dict[str, tuple]:
    """Those that model.multiscale.MultiscaleTokenizer has more than a VQ tokenizer, by their paths."""
    c = vq.code_dim
    rows = [row for i in range(PHIS) for row in conv(f"generation_encoder.phi.{i}", "", c, c)]
    return {row.ours: row.our_shape for row in rows}


def scale_shapes(c: JanusConfig) -> dict[str, tuple]:
    """Those that model.next_scale.NextScale has more than Janus."""
    vq = c.generation_encoder
    positions = {"generation_adaptor.positions": (vq.tokens, c.transformer.width)}
    return tokenizer_shapes(vq) | positions
