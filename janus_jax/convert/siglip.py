"""SigLIP's vision tower alone: big_vision's .npz checkpoints, and transformers' SiglipModel/SiglipVisionModel.

big_vision (google-research/big_vision, models/vit.py): paths joined by `/`, below `params/` or `opt/target/`
in some files, the image tower below `img/` where there are two; layers one by one (`encoderblock_3`), or
stacked (`encoderblock`) when trained with a scan. Its MLPs use the tanh form of GELU, released Janus and this
model the exact one; they differ by up to 5e-4 an activation.
"""

import math
import re

from janus_jax.convert import parts
from janus_jax.convert.table import DROP, HEADS_FIRST, HEADS_LAST, SAME, Ignored, Plan, Row, count
from janus_jax.model.config import UnderstandingEncoderConfig

KIND = "siglip"
TOWER = "understanding_encoder"
NOTE = "its MLPs were trained with the tanh form of GELU; this model computes the exact form, as released Janus does"
PREFIX = re.compile(r"^(?:params/|opt/target/)?(?:img/)?(?=embedding/kernel$)")


def recognises(names) -> bool:
    patches = re.compile(r"(vision_model\.)?embeddings\.patch_embedding\.weight$")
    return any(PREFIX.match(name) or patches.match(name) for name in names)


def plan(values: dict, tensors: dict) -> Plan:
    """values: config.json, where there is one. The sizes are read off the tensors."""
    prefixes = [match.group() for match in map(PREFIX.match, tensors) if match]
    return _big_vision(prefixes[0], tensors) if prefixes else _transformers(values, tensors)


def _big_vision(prefix: str, tensors: dict) -> Plan:
    encoder, positions = f"{prefix}Transformer/", f"{prefix}pos_embedding"
    scanned = f"{encoder}encoderblock/LayerNorm_0/scale" in tensors
    block = f"{encoder}encoderblock" + ("" if scanned else "_*")
    query = f"{block}/MultiHeadDotProductAttention_0/query/kernel".replace("*", "0")
    dense = f"{block}/MlpBlock_0/Dense_0/kernel".replace("*", "0")
    _require(tensors, positions, query, dense)
    patch, _, _, w = tensors[f"{prefix}embedding/kernel"].shape
    layers = tensors[query].shape[0] if scanned else count(tensors, rf"{encoder}encoderblock_(\d+)/")
    heads, f, tokens = tensors[query].shape[-2], tensors[dense].shape[-1], tensors[positions].shape[1]

    def row(ours, theirs, *shape, transform=SAME, layers=None):
        return Row(f"{TOWER}.{ours}", theirs, shape, transform, layers)

    rows = [
        row("patch_kernel", f"{prefix}embedding/kernel", patch, patch, 3, w),
        row("patch_bias", f"{prefix}embedding/bias", w),
        row("positions", positions, 1, tokens, w, transform=DROP),
        *(row(f"norm.{p}", f"{encoder}encoder_norm/{p}", w) for p in ("scale", "bias")),
    ]
    for i, (d_in, d_out) in enumerate(((w, f), (f, w))):
        norm, mlp = f"{block}/LayerNorm_{i}", f"{block}/MlpBlock_0/Dense_{i}"
        rows += [row(f"blocks.norm{i + 1}.{p}", f"{norm}/{p}", w, layers=layers) for p in ("scale", "bias")]
        rows.append(row(f"blocks.mlp.fc{i + 1}.kernel", f"{mlp}/kernel", d_in, d_out, layers=layers))
        rows.append(row(f"blocks.mlp.fc{i + 1}.bias", f"{mlp}/bias", d_out, layers=layers))
    attention, size = f"{block}/MultiHeadDotProductAttention_0", w // heads
    for p, name in (("q", "query"), ("k", "key"), ("v", "value")):
        ours, theirs = f"blocks.attention.{p}", f"{attention}/{name}"
        rows.append(
            row(f"{ours}.kernel", f"{theirs}/kernel", w, heads, size, transform=HEADS_LAST, layers=layers)
        )
        rows.append(row(f"{ours}.bias", f"{theirs}/bias", heads, size, transform=HEADS_LAST, layers=layers))
    ours, theirs = "blocks.attention.o", f"{attention}/out"
    rows.append(
        row(f"{ours}.kernel", f"{theirs}/kernel", heads, size, w, transform=HEADS_FIRST, layers=layers)
    )
    rows.append(row(f"{ours}.bias", f"{theirs}/bias", w, layers=layers))
    root = prefix.removesuffix("img/")
    ignored = (
        Ignored(f"{prefix}MAPHead_0/*", "SigLIP's pooling head, which Janus does not use"),
        Ignored(f"{prefix}head/*", "SigLIP's output map, which Janus does not use"),
        Ignored(f"{root}txt/*", "SigLIP's text tower, which Janus does not use"),
        *(Ignored(f"{root}{name}", "the temperature and bias of SigLIP's loss") for name in ("t", "b")),
        Ignored("opt/*", "optimizer state"),
    )
    return Plan(KIND, rows, ignored, facts={f"{TOWER}.heads": heads}, notes=(NOTE,))


def _transformers(values: dict, tensors: dict) -> Plan:
    root = "vision_model." if "vision_model.embeddings.patch_embedding.weight" in tensors else ""
    patches, positions = (f"{root}embeddings.{n}.weight" for n in ("patch_embedding", "position_embedding"))
    fc1 = f"{root}encoder.layers.0.mlp.fc1.weight"
    _require(tensors, positions, fc1)
    width, _, patch, _ = tensors[patches].shape
    section = values.get("vision_config", values)
    heads = section.get("num_attention_heads", 16 if width == 1024 else None)
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
    facts = {f"{TOWER}.heads": heads} if heads else {}
    notes = () if section.get("hidden_act") == "gelu" else (NOTE,)
    return Plan(KIND, parts.tower_rows(sizes, root, "out_proj"), ignored, facts=facts, notes=notes)


def _require(tensors: dict, *names: str):
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"SigLIP's vision tower without {', '.join(missing)}, so its sizes are not known")
