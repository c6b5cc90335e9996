"""SigLIP's vision tower alone: big_vision's .npz checkpoints, and transformers'
SiglipModel/SiglipVisionModel.

big_vision (google-research/big_vision, models/vit.py): paths joined by `/`, below `params/` or
`opt/target/` in some files, the image tower below `img/` where there are two; layers one by one
(`encoderblock_3`), or stacked (`encoderblock`) when trained with a scan. Its MLPs use the tanh form
of GELU, released Janus and this model the exact one; they differ by up to 5e-4 an activation.
"""

import math
import re

from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.weights import parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import DROP, HEADS_FIRST, HEADS_LAST, SAME, Ignored, Layout, Row, count

KIND = "siglip"
MODEL_TYPES = ("siglip", "siglip_vision_model")
NEEDS_CONFIG = False  # its sizes are read off the tensors
TOWER = "understanding_encoder"
NOTE = "its MLPs were trained with the tanh form of GELU; this model computes the exact form, as released Janus does"
PREFIX = re.compile(r"^(?:params/|opt/target/)?(?:img/)?(?=embedding/kernel$)")


def recognises(names) -> bool:
    patches = re.compile(r"(vision_model\.)?embeddings\.patch_embedding\.weight$")
    return any(PREFIX.match(name) or patches.match(name) for name in names)


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json, where there is one. The sizes are read off the tensors."""
    prefixes = [match.group() for match in map(PREFIX.match, tensors) if match]
    return _big_vision(prefixes[0], tensors) if prefixes else _transformers(values, tensors)


def _big_vision(prefix: str, tensors: dict) -> Layout:
    encoder = f"{prefix}Transformer/"
    positions = f"{prefix}pos_embedding"
    scanned = f"{encoder}encoderblock/LayerNorm_0/scale" in tensors
    block = f"{encoder}encoderblock" if scanned else f"{encoder}encoderblock_*"
    query = f"{block}/MultiHeadDotProductAttention_0/query/kernel".replace("*", "0")
    dense = f"{block}/MlpBlock_0/Dense_0/kernel".replace("*", "0")
    _require(tensors, positions, query, dense)
    patch, _, _, w = tensors[f"{prefix}embedding/kernel"].shape
    heads = tensors[query].shape[-2]
    f = tensors[dense].shape[-1]
    if scanned:
        layers = tensors[query].shape[0]
    else:
        layers = count(tensors, rf"{encoder}encoderblock_(\d+)/")
    rows = [
        _row("patch_kernel", f"{prefix}embedding/kernel", (patch, patch, 3, w)),
        _row("patch_bias", f"{prefix}embedding/bias", (w,)),
        _row("positions", positions, (1, tensors[positions].shape[1], w), DROP),
        *(_row(f"norm.{p}", f"{encoder}encoder_norm/{p}", (w,)) for p in ("scale", "bias")),
        *_mlps(block, w, f, layers),
        *_attention(f"{block}/MultiHeadDotProductAttention_0", w, heads, layers),
    ]
    root = prefix.removesuffix("img/")
    temperature = "the temperature and bias of SigLIP's loss"
    ignored = (
        Ignored(f"{prefix}MAPHead_0/*", "SigLIP's pooling head, which Janus does not use"),
        Ignored(f"{prefix}head/*", "SigLIP's output map, which Janus does not use"),
        Ignored(f"{root}txt/*", "SigLIP's text tower, which Janus does not use"),
        Ignored(f"{root}t", temperature),
        Ignored(f"{root}b", temperature),
        Ignored("opt/*", "optimizer state"),
    )
    return Layout(KIND, rows, ignored, unshaped={f"{TOWER}.heads": heads}, notes=(NOTE,))


def _row(ours: str, theirs: str, shape: tuple[int, ...], transform=SAME, layers=None) -> Row:
    return Row(f"{TOWER}.{ours}", theirs, shape, transform, layers)


def _mlps(block: str, w: int, f: int, layers: int) -> list[Row]:
    """Both norms of a block, and the two maps of its MLP."""
    rows = []
    for i, (d_in, d_out) in enumerate(((w, f), (f, w))):
        norm = f"{block}/LayerNorm_{i}"
        mlp = f"{block}/MlpBlock_0/Dense_{i}"
        for p in ("scale", "bias"):
            rows.append(_row(f"blocks.norm{i + 1}.{p}", f"{norm}/{p}", (w,), layers=layers))
        fc = f"blocks.mlp.fc{i + 1}"
        rows.append(_row(f"{fc}.kernel", f"{mlp}/kernel", (d_in, d_out), layers=layers))
        rows.append(_row(f"{fc}.bias", f"{mlp}/bias", (d_out,), layers=layers))
    return rows


def _attention(theirs: str, w: int, heads: int, layers: int) -> list[Row]:
    """Their maps have heads and head sizes on axes of their own."""
    rows = []
    size = w // heads
    for p, name in (("q", "query"), ("k", "key"), ("v", "value")):
        ours = f"blocks.attention.{p}"
        kernel = (w, heads, size)
        rows.append(_row(f"{ours}.kernel", f"{theirs}/{name}/kernel", kernel, HEADS_LAST, layers))
        rows.append(
            _row(f"{ours}.bias", f"{theirs}/{name}/bias", (heads, size), HEADS_LAST, layers)
        )
    ours = "blocks.attention.o"
    kernel = (heads, size, w)
    rows.append(_row(f"{ours}.kernel", f"{theirs}/out/kernel", kernel, HEADS_FIRST, layers))
    rows.append(_row(f"{ours}.bias", f"{theirs}/out/bias", (w,), layers=layers))
    return rows


def _transformers(values: dict, tensors: dict) -> Layout:
    root = "vision_model." if "vision_model.embeddings.patch_embedding.weight" in tensors else ""
    patches, positions = (
        f"{root}embeddings.{n}.weight" for n in ("patch_embedding", "position_embedding")
    )
    fc1 = f"{root}encoder.layers.0.mlp.fc1.weight"
    _require(tensors, positions, fc1)
    width, _, patch, _ = tensors[patches].shape
    problems = []
    section = Section(values.get("vision_config", values), "", problems)
    heads = section.whole("num_attention_heads", 16 if width == 1024 else None)
    side = math.isqrt(tensors[positions].shape[0]) * patch
    sizes = UnderstandingEncoderConfig(
        image_size=side, patch_size=patch, width=width, mlp_width=tensors[fc1].shape[0],
        layers=count(tensors, rf"{re.escape(root)}encoder\.layers\.(\d+)\."), heads=heads or 1,
    )  # fmt: skip
    ignored = (
        Ignored(f"{root}head.*", "SigLIP's pooling head, which Janus does not use"),
        Ignored("text_model.*", "SigLIP's text tower, which Janus does not use"),
        Ignored("logit_*", "the temperature and bias of SigLIP's loss"),
        Ignored("*.position_ids", "a buffer that counts positions"),
    )
    unshaped = {f"{TOWER}.heads": heads} if heads else {}
    section.only("hidden_act", "gelu", "gelu_pytorch_tanh")
    section.only("layer_norm_eps", 1e-6)
    parts.tower_problems(sizes, section, "hidden_size", "num_attention_heads")
    notes = () if section.get("hidden_act") == "gelu" else (NOTE,)
    rows = parts.tower_rows(sizes, root, "out_proj")
    return Layout(KIND, rows, ignored, problems=tuple(problems), unshaped=unshaped, notes=notes)


def _require(tensors: dict, *names: str):
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(
            f"SigLIP's vision tower without {', '.join(missing)}, so its sizes are not known"
        )
