"""LlamaGen's VQ tokenizer alone (FoundationVision/LlamaGen,
tokenizer/tokenizer_image/vq_model.py)."""

from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.weights import parts
from janus_jax.weights.table import Ignored, Layout, count

KIND = "llamagen_vq"
MODEL_TYPES = ()
NEEDS_CONFIG = False  # its sizes are read off the tensors
IGNORED = (Ignored("quantize.codebook_used", "a buffer that counts code usage in training"),)


def recognises(names) -> bool:
    return "quantize.embedding.weight" in names


def layout(values: dict, tensors: dict) -> Layout:
    """The sizes are read off the tensors; there is no config.json to such a file."""
    levels = count(tensors, r"encoder\.conv_blocks\.(\d+)\.")
    ends = ["encoder.conv_in.weight", "encoder.conv_out.weight"]
    firsts = [f"encoder.conv_blocks.{i}.res.0.conv1.weight" for i in range(levels)]
    missing = [name for name in [*ends, *firsts] if name not in tensors]
    if missing or not levels:
        raise ValueError(
            f"a VQ tokenizer without {', '.join(missing) or 'levels'}, so its sizes are not known"
        )
    channels, z_channels = (tensors[name].shape[0] for name in ends)
    codes, code_dim = tensors["quantize.embedding.weight"].shape
    sizes = GenerationEncoderConfig(
        channels=channels, multipliers=tuple(tensors[name].shape[0] // channels for name in firsts),
        res_blocks=count(tensors, r"encoder\.conv_blocks\.0\.res\.(\d+)\."), z_channels=z_channels,
        codebook_size=codes, code_dim=code_dim,
    )  # fmt: skip
    unshaped = {"generation_encoder.norm_groups": 32}
    return Layout(KIND, parts.vq_rows(sizes, "", parts.LLAMAGEN), IGNORED, unshaped=unshaped)
