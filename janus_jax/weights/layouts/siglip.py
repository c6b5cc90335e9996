"""SigLIP and SigLIP 2 (arXiv 2502.14786) for pictures of one size: big_vision's .npz checkpoints, and
transformers' SiglipModel/SiglipVisionModel.

Of both, the image tower and its pooling head. The text tower, temperature and bias are taken from
big_vision's layout alone, and where a tokenizer.json lies beside the file, as in what this project
writes: released text towers know the ids of a SentencePiece model, which no tokenizer here has.

big_vision (google-research/big_vision, models/vit.py): paths joined by `/`, below `params/` or
`opt/target/` in some files, the image tower below `img/` where there are two; layers one by one
(`encoderblock_3`), or stacked (`encoderblock`) when trained with a scan. Its MLPs use the tanh form
of GELU, released Janus and this model's default the exact one; they differ by up to 5e-4 an activation.
"""

import dataclasses
import math
import re

from janus_jax.model.config import UnderstandingEncoderConfig
from janus_jax.weights import parts
from janus_jax.weights.settings import Section
from janus_jax.weights.table import (
    DROP,
    HEADS_FIRST,
    HEADS_LAST,
    LINEAR,
    SAME,
    Ignored,
    Layout,
    Row,
    count,
    linear,
    norm,
)

KIND = "siglip"
MODEL_TYPES = ("siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model")
NEEDS_CONFIG = False  # its sizes are read off the tensors
TOWER = "understanding_encoder"
NOTE = (
    "its MLPs were trained with the tanh form of GELU, which a model computes whose "
    "understanding_encoder.activation is gelu_tanh; gelu is the exact form, as released Janus has it"
)
TEXTS = "SigLIP's text tower and what belongs to it: no tokenizer.json says what its ids mean"
PREFIX = re.compile(r"^(?:params/|opt/target/)?(?:img/)?(?=embedding/kernel$)")


def recognises(names) -> bool:
    patches = re.compile(r"(vision_model\.)?embeddings\.patch_embedding\.weight$")
    if any(name.endswith("embeddings.class_embedding") for name in names):
        return False  # CLIP's or InternViT's
    return any(PREFIX.match(name) or patches.match(name) for name in names)


def layout(values: dict, tensors: dict) -> Layout:
    """values: config.json, where there is one. The sizes are read off the tensors."""
    prefixes = [match.group() for match in map(PREFIX.match, tensors) if match]
    return _big_vision(prefixes[0], tensors) if prefixes else _transformers(values, tensors)


def _big_vision(prefix: str, tensors: dict) -> Layout:
    sizes = _sizes(
        f"{prefix}embedding/kernel", f"{prefix}pos_embedding", f"{prefix}Transformer", tensors
    )
    rows = image_rows(prefix, sizes)
    ignored = []
    notes = ()
    root = prefix.removesuffix("img/")
    if f"{prefix}MAPHead_0/probe" in tensors:
        rows += pooling_rows(prefix, sizes)
    if f"{root}txt/pos_embedding" in tensors and _has_tokenizer(tensors):
        text = _sizes("", f"{root}txt/pos_embedding", f"{root}txt/Encoder_0", tensors)
        ids = tensors[f"{root}txt/Embed_0/embedding"].shape[0]
        rows += text_rows(root, text, ids)
        if text.heads != sizes.heads:
            raise ValueError(
                f"its text tower has {text.heads} heads, its image tower {sizes.heads}; here both have "
                "as many: take away the tokenizer.json beside it to read the image tower alone"
            )
    else:
        notes = (NOTE,)
        ignored += [Ignored(f"{root}{name}", TEXTS) for name in ("txt/*", "t", "b")]
    ignored += [
        Ignored(f"{prefix}head/*", "SigLIP's output map, which this model does not have"),
        Ignored("opt/*", "optimizer state"),
    ]
    heads = {f"{TOWER}.heads": sizes.heads}
    layers = sizes.layers
    return Layout(KIND, rows, tuple(ignored), unshaped=heads, notes=notes, layers=layers)


def rows_of(leaves: dict, heads: int) -> list[Row]:
    """The table by which leaves of ours are written, as far as they are there: layers one by one,
    below `params/img/` and `params/txt/`. leaves: path -> (shape, dtype)."""
    shape = lambda name: leaves[name][0]
    layers, w, f = shape(f"{TOWER}.blocks.mlp.fc1.kernel")
    sizes = Sizes(
        shape(f"{TOWER}.patch_kernel")[0], shape(f"{TOWER}.positions")[0], w, f, heads, layers
    )
    rows = image_rows("params/img/", sizes)
    if "pooling_head.probe" in leaves:
        rows += pooling_rows("params/img/", sizes)
    if "text_tower.positions" in leaves:
        texts = dataclasses.replace(sizes, tokens=shape("text_tower.positions")[0])
        rows += text_rows("params/", texts, shape("text_tower.embedding.table")[0])
    return rows


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of one of big_vision's towers. scanned: whether its layers are stacked."""

    patch: int
    tokens: int
    width: int
    mlp_width: int
    heads: int
    layers: int
    scanned: bool = False


def _sizes(kernel: str, positions: str, encoder: str, tensors: dict) -> Sizes:
    """kernel: the name of the patches' kernel, empty where there are none."""
    scanned = f"{encoder}/encoderblock/LayerNorm_0/scale" in tensors
    block = f"{encoder}/encoderblock" if scanned else f"{encoder}/encoderblock_0"
    query = f"{block}/MultiHeadDotProductAttention_0/query/kernel"
    dense = f"{block}/MlpBlock_0/Dense_0/kernel"
    _require(tensors, positions, query, dense)
    *stacked, width, heads, _ = tensors[query].shape
    layers = stacked[0] if scanned else count(tensors, rf"{encoder}/encoderblock_(\d+)/")
    patch = tensors[kernel].shape[0] if kernel else 0
    tokens = tensors[positions].shape[1]
    return Sizes(patch, tokens, width, tensors[dense].shape[-1], heads, layers, scanned)


def _has_tokenizer(tensors: dict) -> bool:
    """Whether a tokenizer lies beside the file, without which ids of texts mean nothing."""
    return (next(iter(tensors.values())).path.parent / "tokenizer.json").is_file()


def image_rows(prefix: str, s: Sizes) -> list[Row]:
    """The image tower. prefix: of their names, with its slash."""
    w = s.width
    return [
        Row(f"{TOWER}.patch_kernel", f"{prefix}embedding/kernel", (s.patch, s.patch, 3, w)),
        Row(f"{TOWER}.patch_bias", f"{prefix}embedding/bias", (w,)),
        Row(f"{TOWER}.positions", f"{prefix}pos_embedding", (1, s.tokens, w), DROP),
        *_encoder(TOWER, f"{prefix}Transformer", s),
    ]


def pooling_rows(prefix: str, s: Sizes) -> list[Row]:
    head = f"{prefix}MAPHead_0"
    return [
        Row("pooling_head.probe", f"{head}/probe", (1, 1, s.width), DROP),
        *_norm("pooling_head.norm", f"{head}/LayerNorm_0", s.width),
        *_mlp("pooling_head.mlp", head, s, None),
        *_attention("pooling_head.attention", head, s, None),
    ]


def text_rows(root: str, s: Sizes, vocabulary: int) -> list[Row]:
    """The text tower, temperature and bias. root: of their names, with its slash."""
    w = s.width
    return [
        Row("text_tower.embedding.table", f"{root}txt/Embed_0/embedding", (vocabulary, w)),
        Row("text_tower.positions", f"{root}txt/pos_embedding", (1, s.tokens, w), DROP),
        *_encoder("text_tower", f"{root}txt/Encoder_0", s),
        Row("text_tower.head.kernel", f"{root}txt/head/kernel", (w, w)),
        Row("text_tower.head.bias", f"{root}txt/head/bias", (w,)),
        Row("contrast.t", f"{root}t", (1,)),
        Row("contrast.b", f"{root}b", (1,)),
    ]


def _encoder(ours: str, theirs: str, s: Sizes) -> list[Row]:
    """The layers of a tower, and the norm after them."""
    block = f"{theirs}/encoderblock" if s.scanned else f"{theirs}/encoderblock_*"
    return [
        *_norm(f"{ours}.norm", f"{theirs}/encoder_norm", s.width),
        *_norm(f"{ours}.blocks.norm1", f"{block}/LayerNorm_0", s.width, s.layers),
        *_norm(f"{ours}.blocks.norm2", f"{block}/LayerNorm_1", s.width, s.layers),
        *_mlp(f"{ours}.blocks.mlp", block, s, s.layers),
        *_attention(f"{ours}.blocks.attention", block, s, s.layers),
    ]


def _norm(ours: str, theirs: str, width: int, layers=None) -> list[Row]:
    return [Row(f"{ours}.{p}", f"{theirs}/{p}", (width,), layers=layers) for p in ("scale", "bias")]


def _mlp(ours: str, theirs: str, s: Sizes, layers: int | None) -> list[Row]:
    rows = []
    for i, (d_in, d_out) in enumerate(((s.width, s.mlp_width), (s.mlp_width, s.width))):
        name = f"{theirs}/MlpBlock_0/Dense_{i}"
        rows.append(Row(f"{ours}.fc{i + 1}.kernel", f"{name}/kernel", (d_in, d_out), layers=layers))
        rows.append(Row(f"{ours}.fc{i + 1}.bias", f"{name}/bias", (d_out,), layers=layers))
    return rows


def _attention(ours: str, theirs: str, s: Sizes, layers: int | None) -> list[Row]:
    """Their maps have heads and head sizes on axes of their own."""
    rows = []
    w = s.width
    heads = (s.heads, w // s.heads)
    theirs = f"{theirs}/MultiHeadDotProductAttention_0"
    for p, name in (("q", "query"), ("k", "key"), ("v", "value")):
        kernel = f"{theirs}/{name}/kernel"
        rows.append(Row(f"{ours}.{p}.kernel", kernel, (w, *heads), HEADS_LAST, layers))
        rows.append(Row(f"{ours}.{p}.bias", f"{theirs}/{name}/bias", heads, HEADS_LAST, layers))
    rows.append(Row(f"{ours}.o.kernel", f"{theirs}/out/kernel", (*heads, w), HEADS_FIRST, layers))
    rows.append(Row(f"{ours}.o.bias", f"{theirs}/out/bias", (w,), layers=layers))
    return rows


def _transformers(values: dict, tensors: dict) -> Layout:
    root = "vision_model." if "vision_model.embeddings.patch_embedding.weight" in tensors else ""
    patches, positions = (
        f"{root}embeddings.{n}.weight" for n in ("patch_embedding", "position_embedding")
    )
    fc1 = f"{root}encoder.layers.0.mlp.fc1.weight"
    _require(tensors, positions, fc1)
    if len(tensors[patches].shape) != 4:
        raise ValueError(
            "SigLIP 2 for pictures of any size (NaFlex), whose patches and positions are not those of "
            "one size; take one for a single size, such as google/siglip2-so400m-patch16-512"
        )
    width, _, patch, _ = tensors[patches].shape
    problems = []
    section = Section(values.get("vision_config", values), "", problems)
    heads = section.whole("num_attention_heads", 16 if width in (1024, 1152) else None)
    side = math.isqrt(tensors[positions].shape[0]) * patch
    sizes = UnderstandingEncoderConfig(
        image_size=side, patch_size=patch, width=width, mlp_width=tensors[fc1].shape[0],
        layers=count(tensors, rf"{re.escape(root)}encoder\.layers\.(\d+)\."), heads=heads or 1,
    )  # fmt: skip
    ignored = (
        Ignored("text_model.*", "SigLIP's text tower, which is read in big_vision's layout alone"),
        Ignored(
            "logit_*", "the temperature and bias of SigLIP's loss, which go with the text tower"
        ),
        Ignored("*.position_ids", "a buffer that counts positions"),
    )
    unshaped = {f"{TOWER}.heads": heads} if heads else {}
    section.only("hidden_act", "gelu", "gelu_pytorch_tanh")
    section.only("layer_norm_eps", 1e-6)
    parts.tower_problems(sizes, section, "hidden_size", "num_attention_heads")
    notes = () if section.get("hidden_act") == "gelu" else (NOTE,)
    rows = parts.tower_rows(sizes, root, "out_proj")
    if f"{root}head.probe" in tensors:
        rows += _their_pooling(f"{root}head", sizes)
    return Layout(
        KIND,
        rows,
        ignored,
        problems=tuple(problems),
        unshaped=unshaped,
        notes=notes,
        layers=sizes.layers,
    )


def _their_pooling(head: str, c: UnderstandingEncoderConfig) -> list[Row]:
    """transformers' pooling head: torch.nn.MultiheadAttention has q, k and v in one."""
    w = c.width
    rows = [Row("pooling_head.probe", f"{head}.probe", (1, 1, w), DROP)]
    for k, p in enumerate("qkv"):
        ours = f"pooling_head.attention.{p}"
        theirs = f"{head}.attention.in_proj_"
        rows.append(Row(f"{ours}.kernel", f"{theirs}weight", (3 * w, w), LINEAR, None, (k, 3)))
        rows.append(Row(f"{ours}.bias", f"{theirs}bias", (3 * w,), SAME, None, (k, 3)))
    rows += linear("pooling_head.attention.o", f"{head}.attention.out_proj", w, w)
    rows += norm("pooling_head.norm", f"{head}.layernorm", w)
    rows += linear("pooling_head.mlp.fc1", f"{head}.mlp.fc1", w, c.mlp_width)
    return rows + linear("pooling_head.mlp.fc2", f"{head}.mlp.fc2", c.mlp_width, w)


def _require(tensors: dict, *names: str):
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(
            f"SigLIP's vision tower without {', '.join(missing)}, so its sizes are not known"
        )
