"""The audit of a stage's compiled step, as plain data and as tables to read."""

import math

import jax

from janus_jax.common.text import size, table
from janus_jax.distributed.chips import Chip
from janus_jax.model import flops
from janus_jax.model import sharding as sh
from janus_jax.plan import audit, hlo, products
from janus_jax.plan.gpus import GPUS
from janus_jax.training.loss import rows_at_once

ASSUMED = (
    "in the estimate: a loop whose turns depend on the data turns once; a conditional takes its "
    "dearer branch"
)
ROWS_ASSUMED = (
    "in the estimate of rows: the cross-entropy's loop turns as often as the supervised tokens need; "
    "a chunk of pictures is computed, on one chip, for the share of the slots that are filled; "
    "attention computes 1.2 times the pairs that examples have, on TPUs, whose tiles are larger, 3.2 "
    "times"
)
ESTIMATED = "estimated from the program, +-20 %"  # among the speeds
LARGEST = 5  # losses that are told
# Pairs that attention kernels compute, over those that examples of about 690 tokens have: simulated
# for rows of 3840, tiles of 64 on GPUs and of 512 on TPUs.
TILES, WIDE_TILES = 1.2, 3.2
# Which parts of the model FLOPs (flops.count) a group of kernels computes.
_PARTS = {
    (audit.FORWARD, audit.BACKWARD): ("transformer",),
    (audit.ATTENTION,): ("attention",),
    (audit.TOWER,): ("understanding_encoder", "semantic_decoder"),
    (audit.VQ,): ("generation_encoder",),
    (audit.LOSS, audit.REST): (
        "text_head", "image_head", "understanding_adaptor", "generation_adaptor",
    ),
}  # fmt: skip


def studied(
    module: hlo.Module | None, chip: Chip, stage, model, work: flops.Work, parts: dict
) -> tuple[dict | None, list[str]]:
    """The audit of a step on the current mesh, FLOPs, bytes, seconds and kernels of one chip; and
    why there is none: a compiler may write what is not understood here.

    module: the compiled step, None where it was refused.
    chip: what runs it.
    stage: the stage.
    model: its model.
    work: what a step is expected to hold.
    parts: its model FLOPs by part, of all chips.
    """
    if module is None:
        return None, []
    mesh = jax.sharding.get_mesh()
    rows = stage.rows
    shown = pictures_a_row(rows, work)
    total = lambda of: sum(x[of] for x in shown.values())
    filled = total("holds") / max(total("room"), 1)
    tiles = TILES if chip.name in GPUS else WIDE_TILES
    try:
        found = audit.audit(
            module,
            dict(mesh.shape),
            chip,
            lambda loop: turns(loop, stage, model, work),
            filled if mesh.size == 1 else 1.0,
            min(tiles * work.pairs / (rows.count * rows.length**2), 0.5),
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return None, [f"the program could not be gone through, nothing is estimated: {why}"]
    data = as_data(found, chip, {part: x / mesh.size for part, x in parts.items()})
    return data | {"pictures": shown}, []


def pictures_a_row(rows, work: flops.Work) -> dict[str, dict]:
    """Of pictures that a step encodes, by what for: how many a row has `room` for, how many it `holds`."""
    room = {"understand": rows.understanding_images, "draw": rows.generation_images}
    held = {"understand": work.understanding_images, "draw": work.generation_images}
    return {of: {"room": room[of], "holds": n / rows.count} for of, n in held.items() if n}


def turns(loop: hlo.Instruction, stage, model, work: flops.Work) -> float:
    """Of a loop whose turns depend on the data."""
    shards = sh.batch_shards() * stage.accumulate
    n = stage.rows.count * stage.rows.length // shards
    heads = (
        (model.transformer.vocabulary, work.text),
        (model.generation_encoder.codebook_size, work.image),
    )
    for vocabulary, supervised in heads:
        v = vocabulary // sh.tensor_shards()
        if any(v in shape.dims for shape in loop.shapes):
            return max(math.ceil(supervised / shards / rows_at_once(n, v)), 1)
    return 1.0


def as_data(found: audit.Audit, chip: Chip, parts: dict[str, float]) -> dict:
    """An audit as plain data; parts: the model FLOPs of one chip by part."""
    total = found.total
    needed = useful(found, parts)
    exact = {
        group: sum(s.flops.get(kind, 0.0) for kind in (products.FLOAT32, products.ROUNDED))
        for group, s in found.groups.items()
    }
    losses = [
        {"part": group, "line": place, "seconds": s.seconds,
         "lost": s.seconds - sum(s.flops.values()) * needed.get(group, 0.0) / chip.flops}
        for (group, place), s in found.places.items()
    ]  # fmt: skip
    links = [vars(one) for one in sorted(found.links, key=lambda one: -one.bytes)]
    losses += [
        {"part": "links", "line": f"{one['kind']}, exposed", "seconds": one["exposed"],
         "lost": one["exposed"]} for one in links
    ]  # fmt: skip
    return {
        "seconds": found.seconds,
        "flops": dict(total.flops),
        "model_flops": sum(parts.values()),
        "float32": {group: n for group, n in exact.items() if n},
        "bytes": total.bytes,
        "kernels": total.kernels,
        "waits": found.waits if chip.name in GPUS else None,
        "parts": {
            group: {"flops": sum(s.flops.values()), "bytes": s.bytes, "kernels": s.kernels,
                    "seconds": s.seconds}
            for group in audit.GROUPS if (s := found.groups.get(group))
        },
        "collectives": links,
        "losses": sorted(losses, key=lambda x: -x["lost"])[:LARGEST],
    }  # fmt: skip


def useful(found: audit.Audit, parts: dict[str, float]) -> dict[str, float]:
    """Group -> the share of its FLOPs that the model needs."""
    out = {}
    known = [name for names in _PARTS.values() for name in names]
    more = [name for name in parts if name not in known]  # of further senses
    for groups, names in _PARTS.items():
        mine = "_encoder" if audit.TOWER in groups else "_adaptor" if audit.REST in groups else " "
        names = [*names, *(name for name in more if name.endswith(mine))]
        done = sum(sum(found.groups[g].flops.values()) for g in groups if g in found.groups)
        need = sum(parts.get(name, 0.0) for name in names)
        out |= {group: min(1.0, need / done) if done else 0.0 for group in groups}
    return out


def told(x: dict) -> str:
    """`studied`'s for a reader."""
    done = sum(x["flops"].values())
    unit, scale = ("TFLOP", 1e12) if done > 1e11 else ("GFLOP", 1e9)
    waits = "" if x["waits"] is None else f", {x['waits']:,.0f} waits of the host"
    rows = [
        [part, s["flops"] / scale, size(s["bytes"]), round(s["kernels"]), 1e3 * s["seconds"]]
        for part, s in x["parts"].items()
    ]
    lines = [
        f"{done / scale:.3g} {unit} in products, of which the model needs "
        f"{x['model_flops'] / scale:.3g}",
        f"float32 x float32: {float32(x['float32'], done)}",
        f"{size(x['bytes'])} of memory read and written, {x['kernels']:,.0f} kernels{waits}",
        *(
            f"a row has room for {of['room']} pictures to {do}, and holds {of['holds']:.1f} by mean lengths"
            for do, of in x.get("pictures", {}).items()
        ),
        "",
        table(("part", unit, "bytes", "kernels", "ms"), rows),
    ]
    if x["collectives"]:
        rows = [
            [c["kind"], "beside kernels" if c["beside"] else "alone", round(c["count"]),
             size(c["bytes"]), 1e3 * c["seconds"], 1e3 * c["exposed"]] for c in x["collectives"]
        ]  # fmt: skip
        heads = ("collective", "runs", "count", "bytes", "ms", "ms exposed")
        lines += ["", table(heads, rows)]
    rows = [
        [1e3 * one["lost"], 1e3 * one["seconds"], one["part"], one["line"] or "the compiler's own"]
        for one in x["losses"]
    ]
    lines += ["", "Largest losses: time beyond the model's FLOPs at the bfloat16 peak"]
    return "\n".join([*lines, table(("ms lost", "of ms", "part", "line"), rows)])


def float32(parts: dict[str, float], done: float) -> str:
    """Which share of the FLOPs done multiplies float32 by float32, and where."""
    share = sum(parts.values()) / max(done, 1.0)
    if share in (0.0, 1.0):
        return "no product" if share == 0 else "every product"
    return f"{share:.1%} of the FLOPs, in: {', '.join(parts)}"
