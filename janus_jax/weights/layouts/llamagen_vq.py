"""LlamaGen's VQ tokenizer alone (FoundationVision/LlamaGen,
tokenizer/tokenizer_image/vq_model.py), read and written."""

from janus_jax.model.config import LEFT_OUT, GenerationEncoderConfig
from janus_jax.weights import vq_parts
from janus_jax.weights.table import Ignored, Layout, Row, count

KIND = "llamagen_vq"
MODEL_TYPES = ()
NEEDS_CONFIG = False  # its sizes are read off the tensors
FILE = "vq.pt"  # that is written
USED, COUNTED = "quantize.codebook_used", 65536  # a buffer: the last ids that training saw
IGNORED = (Ignored(USED, "a buffer that counts code usage in training", True),)
GROUPS = 32  # of its norms, which stand in its code


def recognises(names) -> bool:
    theirs = any(name.startswith("encoder.down_blocks.") for name in names)  # diffusers' VQModel
    return "quantize.embedding.weight" in names and not theirs


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
    unshaped = {"generation_encoder.norm_groups": GROUPS}
    return Layout(KIND, vq_parts.vq_rows(sizes, "", vq_parts.LLAMAGEN), IGNORED, unshaped=unshaped)


def rows(shapes: dict[str, tuple], unshaped: dict) -> list[Row]:
    """The table of the tokenizer that has these of our leaves; see `vq_parts.vq_sizes`. Raises
    ValueError for one that LlamaGen's code would compute otherwise."""
    sizes = vq_parts.vq_sizes(shapes, unshaped)
    if sizes.norm_groups != GROUPS:
        raise ValueError(
            f"{KIND} cannot represent this tokenizer: generation_encoder.norm_groups is "
            f"{sizes.norm_groups}, and LlamaGen's code always takes {GROUPS}"
        )
    for name, known in LEFT_OUT["generation_encoder"].items():
        if getattr(sizes, name) != known:
            raise ValueError(
                f"{KIND} cannot represent this tokenizer: generation_encoder.{name} is "
                f"{getattr(sizes, name)!r}, and LlamaGen's code knows {known!r} alone; keep it in "
                "this project's layout"
            )
    return vq_parts.vq_rows(sizes, "", vq_parts.LLAMAGEN)
