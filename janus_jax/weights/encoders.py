"""Understanding encoders as other projects write them: the rows of any ViT, by the names of its boxes."""

import dataclasses

from janus_jax.model.config import DIFFERENCES, UnderstandingEncoderConfig
from janus_jax.weights import parts
from janus_jax.weights.differences import ENCODER, written_unshaped
from janus_jax.weights.settings import Section
from janus_jax.weights.table import CONV, Layout, Row, Transform, fused, linear, norm, same

LAST = lambda x: x.reshape(-1, x.shape[-1])  # [1, S, C] or [S, C]
TOKEN = Transform(LAST, None)
FIRST = Transform(lambda x: LAST(x)[:1], None)
REST = Transform(lambda x: LAST(x)[1:], None)


@dataclasses.dataclass(frozen=True)
class Names:
    """What a project calls the boxes of a ViT, below the prefix of them all.

    patch, class_token, positions, pre_norm, final_norm: at the top; the last two without `.weight`.
    block: a layer, `*` its index; below it norm1, norm2, q, k, v (or all three as qkv), o, q_norm, k_norm, fc1,
        fc2, gate, scale1, scale2, and the norms before the last maps, attention_norm and mlp_norm.
    leading: axes of one before the class token's and the positions' own.
    """

    block: str
    patch: str = ""
    class_token: str = ""
    positions: str = ""
    norm1: str = ""
    norm2: str = ""
    o: str = ""
    fc1: str = ""
    fc2: str = ""
    q: str = ""
    k: str = ""
    v: str = ""
    qkv: str = ""
    q_norm: str = ""
    k_norm: str = ""
    gate: str = ""
    scale1: str = ""
    scale2: str = ""
    attention_norm: str = ""
    mlp_norm: str = ""
    pre_norm: str = ""
    final_norm: str = ""
    leading: tuple[int, ...] = (1,)


def vit_rows(c: UnderstandingEncoderConfig, theirs: str, names: Names) -> list[Row]:
    """The table of a ViT whose file has `c.layers` layers; theirs: the prefix, with its dot."""
    w = c.width
    s = c.patches + ("class_token" in c.variant)
    positions = f"{theirs}{names.positions}"
    table = [
        Row(
            f"{ENCODER}.patch_kernel",
            f"{theirs}{names.patch}.weight",
            (w, 3, *[c.patch_size] * 2),
            CONV,
        )
    ]
    if "no_patch_bias" not in c.variant:
        table += same(f"{ENCODER}.patch_bias", f"{theirs}{names.patch}.bias", w)
    at = (*names.leading, s, w)
    if "class_token" in c.variant:
        lead = (*names.leading, 1, w) if names.leading else (w,)
        table += [
            Row(f"{ENCODER}.class_token", f"{theirs}{names.class_token}", lead, TOKEN),
            Row(f"{ENCODER}.class_position", positions, at, FIRST),
            Row(f"{ENCODER}.positions", positions, at, REST),
        ]
    else:
        table.append(Row(f"{ENCODER}.positions", positions, at, TOKEN))
    centred = "rms_norm" not in c.variant
    if "pre_norm" in c.variant:
        table += norm(f"{ENCODER}.pre_norm", f"{theirs}{names.pre_norm}", w, bias=centred)
    if "no_final_norm" not in c.variant:
        table += norm(f"{ENCODER}.norm", f"{theirs}{names.final_norm}", w, bias=centred)
    return table + _block_rows(c, f"{theirs}{names.block}", names)


def _block_rows(c: UnderstandingEncoderConfig, b: str, names: Names) -> list[Row]:
    """Of the layers; b: their name of one, with `*`."""
    w = c.width
    f = c.mlp_width
    n = c.layers
    a = f"{ENCODER}.blocks"
    centred = "rms_norm" not in c.variant
    bias = "no_qkv_bias" not in c.variant
    table = []
    for ours in ("norm1", "norm2"):
        table += norm(f"{a}.{ours}", f"{b}.{getattr(names, ours)}", w, bias=centred, layers=n)
    if names.qkv:
        kept = fused([f"{a}.attention.{p}" for p in "qkv"], f"{b}.{names.qkv}", w, w, layers=n)
        table += [row for row in kept if bias or row.ours.endswith(".kernel")]
    for p in "" if names.qkv else "qkv":
        has = bias and not (p == "k" and "no_key_bias" in c.variant)
        theirs = f"{b}.{getattr(names, p)}"
        table += linear(f"{a}.attention.{p}", theirs, w, w, bias=has, layers=n)
    table += linear(f"{a}.attention.o", f"{b}.{names.o}", w, w, layers=n)
    for p in ("q_norm", "k_norm") if "qk_norm" in c.variant else ():
        table += norm(f"{a}.attention.{p}", f"{b}.{getattr(names, p)}", w, bias=False, layers=n)
    gated = ("gate",) if c.activation == "swiglu" else ()
    for p, d_in, d_out in (("fc1", w, f), *((g, w, f) for g in gated), ("fc2", f, w)):
        table += linear(f"{a}.mlp.{p}", f"{b}.{getattr(names, p)}", d_in, d_out, layers=n)
    if "sub_norm" in c.variant:
        of_attention, of_mlp = (f"{b}.{x}" for x in (names.attention_norm, names.mlp_norm))
        table += norm(f"{a}.attention.sub_norm", of_attention, w, bias=centred, layers=n)
        table += norm(f"{a}.mlp.sub_norm", of_mlp, f, bias=centred, layers=n)
    for p in ("scale1", "scale2") if "layer_scale" in c.variant else ():
        table += same(f"{a}.{p}", f"{b}.{getattr(names, p)}", w, layers=n)
    return table


def shape_of(tensors: dict, name: str, kind: str) -> tuple[int, ...]:
    """Of a tensor that tells sizes. Raises ValueError where it is not there."""
    if name not in tensors:
        raise ValueError(f"an encoder ({kind}) without {name}, so its sizes are not known")
    return tensors[name].shape


OURS = Names(block="blocks.*")  # of whose rows our paths and shapes are read alone


def own_shapes(c: UnderstandingEncoderConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a ViT's leaves by their paths, as `model.vit.ViT` has them."""
    built = dataclasses.replace(c, layers=c.depth, feature_layer=-1)
    return {row.ours: row.our_shape for row in vit_rows(built, "", OURS)}


def part(kind: str, c: UnderstandingEncoderConfig, table: list[Row], ignored, v: Section) -> Layout:
    """The layout of an encoder in a file. v: its config.json, of which all that is read was taken."""
    parts.tower_problems(c, v, "hidden_size", "num_attention_heads")
    told = {
        f"{ENCODER}.{x}": getattr(c, x)
        for x in ("heads", "activation", "norm_eps", "pixels", "rotary_grid")
    }
    return Layout(kind, table, ignored, problems=tuple(v.problems), unshaped=told, layers=c.layers)


def beyond_siglip(leaves, unshaped: dict) -> list[str]:
    """In what an encoder with these leaves, and sizes that no shape tells, is no SigLIP; the tanh form
    of GELU is SigLIP's own."""
    own = {row.ours for row in parts.tower_rows(UnderstandingEncoderConfig(layers=1), "", "")}
    mine = {name for name in leaves if name.startswith(f"{ENCODER}.")}
    fields = {f"{ENCODER}.{x}" for x in DIFFERENCES}
    told = {
        key: x
        for key, x in written_unshaped(unshaped).items()
        if key in fields and x != "gelu_tanh"
    }
    found = [f"{key} is {x!r}" for key, x in told.items()]
    return found + [
        f"{name} is {'missing' if name in own else 'unknown'}" for name in sorted(own ^ mine)
    ]
