"""The balancing table of a conversion: which tensor of theirs becomes which leaf of ours, and back.

A leaf of ours is named by its path joined by dots. Leaves below `.blocks.` hold all layers, one a
row of their leading axis; no other leaf does. Shapes stand in the table, so that it can be checked
against a file before a number is read. numpy only.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable

import numpy as np

from janus_jax.model.config import LEFT_OUT

# Kinds of sources of this project; layouts/ has others.
OWN, CHECKPOINT, ADAPTER = "janus_jax", "checkpoint", "adapter"
PEFT = "peft"  # the kind of PEFT's adapters
VQ = "generation_encoder"  # the child that stages with stored image ids are without


class WeightsError(ValueError):
    """Weights that are damaged, incomplete, of another model, or no weights."""

    exit_code = "usage"


class NoWeightsError(FileNotFoundError, WeightsError):
    """Where weights should be, there are none, or a file that belongs to them is missing."""


@dataclasses.dataclass(frozen=True)
class Transform:
    """`to_ours(x)` of one of their tensors; `to_theirs(y, shape)` of one of ours, theirs having
    that shape, None in a layout that is only read. Views, not copies."""

    to_ours: Callable
    to_theirs: Callable | None


SAME = Transform(lambda x: x, lambda y, shape: y)
LINEAR = Transform(lambda x: x.T, lambda y, shape: y.T)  # [out, in] <-> [in, out]
CONV = Transform(
    lambda x: x.transpose(2, 3, 1, 0), lambda y, shape: y.transpose(3, 2, 0, 1)
)  # OIHW, HWIO
DROP = Transform(lambda x: x[0], lambda y, shape: y[None])  # a leading axis of one
HEADS_LAST = Transform(lambda x: x.reshape(*x.shape[:-2], -1), lambda y, shape: y.reshape(shape))
HEADS_FIRST = Transform(lambda x: x.reshape(-1, *x.shape[2:]), lambda y, shape: y.reshape(shape))


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    ours: the path of our leaf.
    theirs: their key; `*` is the index of the layer. A row of several layers without `*` is one
        tensor of theirs that has the layers on its leading axis already.
    shape: of their tensor, of one layer of it.
    transform: what makes ours of theirs.
    layers: how many our leaf holds, None where it is no stack.
    part: (k, n), ours is the k-th of n equal slices of their leading axis.
    """

    ours: str
    theirs: str
    shape: tuple[int, ...]
    transform: Transform = SAME
    layers: int | None = None
    part: tuple[int, int] = (0, 1)

    @property
    def scanned(self) -> bool:
        return self.layers is not None and "*" not in self.theirs

    @property
    def names(self) -> list[str]:
        """Their keys, layer by layer."""
        if self.layers is None or self.scanned:
            return [self.theirs]
        return [self.name(i) for i in range(self.layers)]

    def name(self, layer: int | None) -> str:
        return self.theirs if layer is None else self.theirs.replace("*", str(layer))

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of each of their tensors in the file."""
        return (self.layers, *self.shape) if self.scanned else self.shape

    @property
    def piece(self) -> tuple[int, ...]:
        """The shape of our part of one of their tensors."""
        return (self.shape[0] // self.part[1], *self.shape[1:]) if self.part[1] > 1 else self.shape

    @property
    def layer_shape(self) -> tuple[int, ...]:
        """The shape of ours, of one layer of it."""
        return self.transform.to_ours(np.broadcast_to(np.int8(0), self.piece)).shape

    @property
    def our_shape(self) -> tuple[int, ...]:
        return self.layer_shape if self.layers is None else (self.layers, *self.layer_shape)


def same(ours, theirs, *shape, layers=None) -> list[Row]:
    return [Row(ours, theirs, shape, layers=layers)]


def norm(ours, theirs, width, *, bias=True, layers=None) -> list[Row]:
    rows = same(f"{ours}.scale", f"{theirs}.weight", width, layers=layers)
    return rows + (same(f"{ours}.bias", f"{theirs}.bias", width, layers=layers) if bias else [])


def linear(ours, theirs, d_in, d_out, *, bias=True, layers=None) -> list[Row]:
    rows = [Row(f"{ours}.kernel", f"{theirs}.weight", (d_out, d_in), LINEAR, layers)]
    return rows + (same(f"{ours}.bias", f"{theirs}.bias", d_out, layers=layers) if bias else [])


def fused(ours: list[str], theirs, d_in, d_out, *, layers=None) -> list[Row]:
    """Linear maps that theirs keeps as the row blocks of one, with biases."""
    rows = []
    n = len(ours)
    for k, name in enumerate(ours):
        rows.append(
            Row(f"{name}.kernel", f"{theirs}.weight", (n * d_out, d_in), LINEAR, layers, (k, n))
        )
        rows.append(Row(f"{name}.bias", f"{theirs}.bias", (n * d_out,), SAME, layers, (k, n)))
    return rows


def conv(ours, theirs, c_in, c_out, size=3) -> list[Row]:
    kernel = Row(f"{ours}.kernel", f"{theirs}.weight", (c_out, c_in, size, size), CONV)
    return [kernel, *same(f"{ours}.bias", f"{theirs}.bias", c_out)]


def by_their_key(rows: list[Row]) -> dict[str, list[tuple[Row, int | None]]]:
    """Each of their keys with the (row, layer) that make it up, parts in order."""
    keys = {}
    for row in rows:
        for layer in [None] if row.layers is None else range(row.layers):
            keys.setdefault(row.name(layer), []).append((row, layer))
    return keys


def own_rows(shapes: dict[str, tuple[int, ...]]) -> list[Row]:
    """The table of our own weights directory: every leaf is stored as it is."""
    return [
        Row(
            name,
            name,
            shape[1:] if stacked(name) else shape,
            SAME,
            shape[0] if stacked(name) else None,
        )
        for name, shape in shapes.items()
    ]


def child(name: str) -> str:
    """The child of the model that a leaf of ours belongs to."""
    return name.split(".")[0]


def stacked(name: str) -> bool:
    """Whether a leaf of ours holds all layers on its leading axis."""
    return ".blocks." in name


FIELDS = {  # where a size of the config shows in a leaf's shape
    "transformer.vocabulary": ("text_embedding.table", 0),
    "transformer.width": ("text_embedding.table", 1),
    "transformer.mlp_width": ("transformer.blocks.gate.kernel", 2),
    "transformer.layers": ("transformer.blocks.gate.kernel", 0),
    "understanding_encoder.patch_size": ("understanding_encoder.patch_kernel", 0),
    "understanding_encoder.width": ("understanding_encoder.patch_kernel", 3),
    "understanding_encoder.tokens": ("understanding_encoder.positions", 0),
    "understanding_encoder.mlp_width": ("understanding_encoder.blocks.mlp.fc1.kernel", 2),
    "understanding_encoder.layers": ("understanding_encoder.blocks.mlp.fc1.kernel", 0),
    "semantic_decoder.width": ("semantic_decoder.positions", 1),
    "semantic_decoder.mlp_width": ("semantic_decoder.blocks.mlp.fc1.kernel", 2),
    "semantic_decoder.layers": ("semantic_decoder.blocks.mlp.fc1.kernel", 0),
    "generation_encoder.codebook_size": ("generation_encoder.codebook", 0),
    "generation_encoder.code_dim": ("generation_encoder.codebook", 1),
    "generation_encoder.channels": ("generation_encoder.encoder.conv_in.kernel", 3),
    "generation_encoder.z_channels": ("generation_encoder.encoder.conv_out.kernel", 3),
    "image_head_width": ("image_head.fc1.kernel", 1),
}


def fields(shapes: dict[str, tuple[int, ...]]) -> dict:
    """The sizes of the config that the shapes of these leaves tell."""
    found = {key: shapes[name][axis] for key, (name, axis) in FIELDS.items() if name in shapes}
    levels = {
        name.split(".")[3]
        for name in shapes
        if name.startswith("generation_encoder.encoder.levels.")
    }
    if levels:
        found["generation_encoder.levels"] = len(levels)
    if "generation_encoder.decoder.norm_out.scale" in shapes:
        found["generation_encoder.decoder_norm"] = decoder_norm(shapes)
    return found | {f"{VQ}.latent": kind for kind in [tokenizer_kind(shapes)] if kind}


def tokenizer_kind(names) -> str:
    """What a tokenizer gives, of config.latents.LATENTS, by its leaves; empty where there is none."""
    kinds = {f"{VQ}.codebook": "vq", f"{VQ}.quant_conv.kernel": "kl"}
    return next((kind for leaf, kind in kinds.items() if leaf in names), "")


def decoder_norm(names) -> str:
    """That of a VQ tokenizer, of config.sizes.NORMS, by its leaves."""
    spatial = "generation_encoder.decoder.norm_out.gamma.kernel" in names
    return "spatial" if spatial else "group"


# sizes that no shape tells, so that weights of others would load and compute something else
UNSHAPED = (
    "transformer.heads", "transformer.rope_theta", "transformer.norm_eps", "understanding_encoder.heads",
    "understanding_encoder.image_size", "generation_encoder.norm_groups", "semantic_decoder.heads",
    "understanding_encoder.activation", "understanding_encoder.norm_eps", "understanding_encoder.pixels",
    "understanding_encoder.rotary_grid",
    "generation_encoder.codebook_l2_norm", "generation_encoder.latent_scale", "generation_encoder.depth",
    "generation_encoder.scales",
)  # fmt: skip


def unshaped(config, children=None) -> dict:
    """The sizes of a JanusConfig that no shape tells, but for what is LEFT_OUT; of some of its
    children, or all."""
    children = config.children if children is None else children
    keys = [key.split(".") for key in UNSHAPED]
    found = {(box, size): getattr(getattr(config, box), size) for box, size in keys}
    told = {
        f"{box}.{size}": " ".join(map(str, value)) if isinstance(value, tuple) else value
        for (box, size), value in found.items()
        if box in children and (size, value) not in LEFT_OUT.get(box, {}).items()
    }
    if config.senses:
        known = importlib.import_module("janus_jax.model.senses.known")
        told |= known.told(config, children)
    return told


def by_direction(unshaped: dict) -> bool:
    """`codebook_l2_norm` of a VQ tokenizer; what says nothing of it is older, or LlamaGen's."""
    return bool(unshaped.get(f"{VQ}.codebook_l2_norm", True))


@dataclasses.dataclass(frozen=True)
class Ignored:
    """Tensors (fnmatch pattern on their key) that have no place in ours. keep: they travel along
    verbatim, so that the way back to their layout is complete."""

    pattern: str
    reason: str
    keep: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """What one kind of source is to us.

    kind: its name.
    rows: the table.
    ignored: tensors without a place in ours.
    config: the sizes of a whole Janus, None for a part.
    problems: what its config.json says that our model cannot represent.
    unshaped: of a part, the sizes that no shape tells (`UNSHAPED`).
    notes: what a user should know.
    image_token_id: the placeholder's id where the config names it.
    layers: of an understanding encoder's file, how many it has; a model may take fewer.
    """

    kind: str
    rows: list[Row]
    ignored: tuple[Ignored, ...] = ()
    config: object = None
    problems: tuple[str, ...] = ()
    unshaped: dict = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    image_token_id: int | None = None
    layers: int | None = None


def compute_dtype(values: dict, dtypes: set) -> str:
    """The dtype a config.json asks to compute in, else that of the tensors; float16 computes in
    float32."""
    said = values.get("dtype") or values.get("torch_dtype")
    if said in ("float32", "bfloat16"):
        return said
    return "bfloat16" if {str(dtype) for dtype in dtypes} == {"bfloat16"} else "float32"


def count(names, pattern: str) -> int:
    """One more than the largest number that `pattern`, at the beginning of a name, catches."""
    found = [int(match.group(1)) for match in map(re.compile(pattern).match, names) if match]
    return 1 + max(found, default=-1)
