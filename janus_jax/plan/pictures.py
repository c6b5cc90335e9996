"""The plan of a stage that learns from pictures alone, without rows of tokens (tasks vq and its like):
memory, products, traffic and time, all read from the compiled step."""

import dataclasses

import jax

from janus_jax.common.text import size, table
from janus_jax.distributed import chips
from janus_jax.plan import aot, audit, collectives, memory, products, program, roofline
from janus_jax.training import ema
from janus_jax.training.stage_plan import StagePlan

ASSUMED = (
    "every product of the compiled program counts as useful; in the bound, float32 products at the "
    "chip's rate for true float32, all others at the bfloat16 peak",
    "memory in the bound is a floor of any program: arguments read once, donated results written "
    "once; nothing else",
)


def study_pictures(experiment, name: str, chip: chips.Chip) -> dict:
    """What one stage would take on the current mesh, as plain data: sizes in bytes, times in
    seconds, FLOPs and bytes of one chip and step.

    experiment: the config.
    name: of the stage.
    chip: what the mesh is made of.
    """
    mesh = jax.sharding.get_mesh()
    plan = StagePlan.of(experiment, name)
    step, state, batch = memory.lower_inputs(plan)
    average = memory.shard_bytes(ema.averaged(state.opt_state))
    held = {
        "weights that learn": memory.shard_bytes(state.trainable),
        "weights and counts that do not": memory.shard_bytes(state.frozen),
        "moments": memory.shard_bytes(state.opt_state) - average,
        "batch": memory.shard_bytes({name: x for name, x in batch.items() if name != "lpips"}),
        "LPIPS": memory.shard_bytes(batch.get("lpips", {})),
    }
    held |= {"average of the weights": average} if average else {}
    compiled = aot.compile_step(step, state, batch, experiment.deterministic)
    parts = held | {"temporaries": compiled.temporaries or 0.0, "program": compiled.program}
    total = sum(parts.values())
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    counts = {child: (count(part), 0) for child, part in state.trainable.items()}
    counts |= {child: (0, count(part)) for child, part in state.frozen.items()}
    counted, remarks = _audited(compiled, chip, dict(mesh.shape))
    out = {
        "parameters": counts,
        "bytes": parts | {"total": total},
        "memory": chip.memory,
        "fits": not compiled.error and total <= chip.memory,
        "error": compiled.error,
        "flops": dict(counted.total.flops) if counted else {},
        "collectives": [
            dataclasses.asdict(c) | {"seconds": collectives.seconds(c, chip)} for c in compiled.sent
        ],
        "remarks": [*compiled.remarks, *remarks],
        "program": None,
        "speeds": {},
        "compile_seconds": compiled.seconds,
    }
    if counted:
        slower = {products.FLOAT32: chip.flops / chip.float32}
        work = sum(x * slower.get(kind, 1.0) for kind, x in out["flops"].items())
        limit = roofline.bound(
            chip,
            work,
            2 * (sum(held.values()) - held["LPIPS"] - held["batch"])
            + held["LPIPS"]
            + held["batch"],
            compiled.sent,
        )
        seconds = {"bound, all overlapped": limit.overlapped, "bound, in turn": limit.in_turn}
        if compiled.own or chip.name == "cpu":
            seconds[program.ESTIMATED] = counted.seconds
        out["bound"] = dataclasses.asdict(limit)
        out["speeds"] = {
            how: _speed(plan.stage, chip, mesh.size, work, s) for how, s in seconds.items()
        }
    return out


def _audited(compiled: aot.Compiled, chip, mesh: dict[str, int]):
    """(the audit of the compiled step, or None; why there is none)."""
    if compiled.module is None:
        return None, []
    try:
        return audit.audit(compiled.module, mesh, chip, lambda _: 1.0, 1.0), []
    except Exception as error:  # a compiler may write what is not understood here
        why = f"{type(error).__name__}: {error}"
        return None, [f"the program could not be gone through, nothing is estimated: {why}"]


def _speed(stage, chip, count: int, work: float, seconds: float) -> dict[str, float]:
    """work: FLOPs of one chip, those in float32 as many more as they are slower."""
    return {
        "seconds": seconds,
        "peak": work / seconds / chip.flops,
        "images_per_s": stage.batch_size / seconds,
        "images_per_s_and_chip": stage.batch_size / seconds / count,
        "days": stage.steps * seconds / 86400,
    }


def picture_tables(plan: dict, name: str, study: dict) -> str:
    """A study for a reader: kB, MB, GB are powers of ten.

    plan: what `report.run` gives.
    name: of the stage.
    study: of the stage.
    """
    shown = lambda n: f"{n:,}" if n else ""
    rows = [[part, *map(shown, counts)] for part, counts in study["parameters"].items()]
    sections = {"parameters": table(("part", "trainable", "other"), rows)}
    rows = [[part, size(x)] for part, x in study["bytes"].items() if x]
    text = table(("", "bytes"), [*rows, [f"usable of {plan['chip']}", size(study["memory"])]])
    verdict = "FITS"
    if not study["fits"]:
        verdict = "\n".join(
            ["DOES NOT FIT", study["error"], f"Lower --config.stages.{name}.batch_size, or take more chips."]
        )  # fmt: skip
    sections["memory of a chip"] = f"{text}\n{verdict}"
    if study["flops"]:
        rows = [[kind, f"{x / 1e12:.3g}"] for kind, x in study["flops"].items()]
        sections["products of a chip and step"] = table(("multiplied in", "TFLOP"), rows)
    rows = [
        [c["kind"], "+".join(c["axes"]), len(c["group"]), c["count"], size(c["bytes"]), 1e3 * c["seconds"]]
        for c in study["collectives"]
    ]  # fmt: skip
    links = table(("kind", "axes", "group", "count", "bytes", "ms"), rows) if rows else "nothing"
    sections["into a chip over its links, a step"] = "\n".join([links, *study["remarks"]])
    if study["speeds"]:
        least = ", ".join(f"{1e3 * x:.1f} ms of {what}" for what, x in study["bound"].items())
        rows = [
            [how, f"{1e3 * s['seconds']:.1f}", f"{s['peak']:.1%}", f"{s['images_per_s']:,.0f}",
             f"{s['images_per_s_and_chip']:,.1f}", f"{s['days']:.3g}"]
            for how, s in study["speeds"].items()
        ]  # fmt: skip
        heads = ("", "ms a step", "of peak", "images/s", "a chip", "days")
        text = f"a step of any program takes at least {least}\n{table(heads, rows)}"
        sections["how fast"] = text
    return "\n\n".join(f"{name}: {title}\n\n{text}" for title, text in sections.items())
