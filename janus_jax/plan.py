"""`python -m janus_jax.plan --config=configs/stage2.py --topology=v5p:4x4x8`: what a stage would take, unbought.

Compiles the true step of each stage for that many chips, with nothing allocated: with the TPU compiler where the
`libtpu` package is installed, the GPU compiler where JAX's CUDA plugin is, else for as many fake CPU devices, whose
temporaries are too high. Prints parameters, bytes a chip, FLOPs, what goes over the links, and how fast a step could be
at best. Exits with 1 when a stage does not fit, with the flags that would save most.
"""

import dataclasses
import functools
import json
import math
import pathlib
import sys

from janus_jax import aot, chips, collectives, flops, roofline


def study(experiment, name: str, chip: chips.Chip) -> dict:
    """All of one stage, as plain data: sizes in bytes, times in seconds, FLOPs and bytes of one chip and step,
    on the current mesh."""
    import jax

    from janus_jax import budget

    mesh = jax.sharding.get_mesh()
    count, stage, model = mesh.size, experiment.stages[name], experiment.model
    step, state, batch = budget.lower_inputs(experiment, stage)
    traced = budget.estimate(experiment, stage, state, batch)
    compiled = aot.compile_step(step, state, batch)
    now = traced
    if compiled.temporaries is not None:
        now = traced.compiled(compiled.arguments or traced.arguments, compiled.temporaries)
    fits = not compiled.error and now.total + compiled.program <= chip.memory
    ids = budget.precomputed(experiment, stage)
    work, parameters = flops.expected(stage, model, ids), budget.parameters(state)
    parts = flops.count(model, stage.trainable, work)
    weights = sum(map(sum, parameters.values())) / mesh.shape["tensor"]
    sent, remarks = compiled.sent, compiled.remarks
    by_shapes = budget.expected_collectives(experiment, stage, state)
    how = "from the shapes (weights gathered twice in the compute type, gradients reduced in float32)"
    if compiled.error:
        sent, remarks = by_shapes, [f"not compiled: a list {how}"]
    limit = roofline.bound(
        chip,
        roofline.executed(stage, model, work) / count,
        roofline.memory_traffic(now, model, weights),
        sent if compiled.own or chip.name == "cpu" else by_shapes,
    )
    if not compiled.own and chip.name != "cpu":
        remarks = [*remarks, f"too high; the bound takes {1e3 * limit.links:.2f} ms, {how}"]
    speeds = functools.partial(roofline.speeds, stage, chip, count, sum(parts.values()), work)
    typical = sum(parts.values()) / (count * chip.flops * chip.mfu)
    return {
        "parameters": parameters,
        "bytes": dataclasses.asdict(now) | {"program": compiled.program, "total": now.total + compiled.program},
        "memory": chip.memory,
        "fits": fits,
        "error": compiled.error,
        "knobs": [] if fits else [dataclasses.asdict(k) for k in budget.knobs(experiment, name, now)],
        "flops": {part: x / count for part, x in parts.items()},
        "work": dataclasses.asdict(work),
        "examples": flops.examples(stage, model),
        "lengths": flops.lengths(stage, model),
        "collectives": [dataclasses.asdict(c) | {"seconds": collectives.seconds(c, chip)} for c in sent],
        "remarks": remarks,
        "bound": dataclasses.asdict(limit),
        "speeds": {
            "bound, all overlapped": speeds(limit.overlapped),
            "bound, nothing overlapped": speeds(limit.in_turn),
            f"typical MFU {chip.mfu:.0%}": speeds(typical),
        },
        "compile_seconds": compiled.seconds,
    }  # fmt: skip


def tables(plan: dict, name: str, s: dict) -> str:
    """A study for a reader: kB, MB, GB are powers of ten."""
    from janus_jax.log import table

    total, floor = sum(s["flops"].values()), s["bound"]
    sections = {
        "parameters": table(
            ("part", "trainable", "frozen"),
            [[part, f"{t:,}", f"{f:,}"] for part, (t, f) in s["parameters"].items()]
            + [["all", *(f"{sum(x):,}" for x in zip(*s["parameters"].values()))]],
        ),
        "memory of a chip": memory_table(plan["chip"], s),
        "model FLOPs of a chip and step": table(
            ("part", "TFLOP", "share"),
            [[part, f"{x / 1e12:.3g}", f"{x / total:.1%}"] for part, x in s["flops"].items()]
            + [["all", f"{total / 1e12:.3g}", "100%"]],
        ),
        "into a chip over its links, a step": table(
            ("kind", "axes", "group", "count", "bytes", "ms"),
            [
                [
                    c["kind"],
                    "+".join(c["axes"]),
                    len(c["group"]),
                    c["count"],
                    size(c["bytes"]),
                    1e3 * c["seconds"],
                ]
                for c in s["collectives"]
            ],
        )
        if s["collectives"]
        else "nothing",
        "how fast at best": "a step takes at least "
        + ", ".join(f"{1e3 * seconds:.1f} ms of {what}" for what, seconds in floor.items())
        + "\n"
        + table(
            ("", "ms a step", "MFU", "tokens/s", "a chip", "images/s", "days"),
            [
                [how, *(form.format(v[key]) for key, form in SPEEDS.items())]
                for how, v in ((how, v | {"ms": 1e3 * v["seconds"]}) for how, v in s["speeds"].items())
            ],
        ),
    }
    if s["remarks"]:
        sections["into a chip over its links, a step"] += "\n" + "\n".join(s["remarks"])
    return "\n\n".join(f"{name}: {title}\n\n{text}" for title, text in sections.items())


SPEEDS = {
    "ms": "{:.1f}", "mfu": "{:.1%}", "tokens_per_s": "{:,.0f}", "tokens_per_s_and_chip": "{:,.0f}",
    "images_per_s": "{:,.0f}", "days": "{:.3g}",
}  # fmt: skip
LABELS = {
    "trainable": "weights, trainable", "frozen": "weights, frozen", "moments": "moments", "batch": "batch",
    "activations": "activations kept for the backward pass", "other": "other temporaries", "program": "program",
    "total": "total",
}  # fmt: skip


def size(n: float) -> str:
    """Bytes, three digits, powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:.{max(0, 2 - int(math.log10(n / scale)))}f} {unit}"
    return f"{n:.0f} B"


def memory_table(chip: str, s: dict) -> str:
    """The bytes of a chip, the verdict and, where it does not fit, the knobs."""
    from janus_jax.log import table

    rows = [[label, size(s["bytes"][key])] for key, label in LABELS.items()]
    text = table(("", "bytes"), [*rows, [f"usable of {chip}", size(s["memory"])]])
    if s["fits"]:
        return f"{text}\nFITS"
    return "\n".join([text, "DOES NOT FIT", *filter(None, [s["error"]]), knob_table(s["knobs"])])


def knob_table(knobs: list[dict]) -> str:
    from janus_jax.log import table

    if not knobs:
        return "No field of the config would save memory: take more chips, or chips with more memory."
    rows = [[k["flag"], size(k["saves"]), k["price"]] for k in knobs]
    return "What would save most, estimated:\n" + table(("flag", "saves a chip", "at the price"), rows)


def explain_out_of_memory(experiment, stage_name: str, error) -> str:
    """Why a stage's step fails for memory on the current mesh, and three flags that help; for a
    RESOURCE_EXHAUSTED `error` while compiling or running it. Nothing is compiled, nothing allocated."""
    import jax

    from janus_jax import budget
    from janus_jax.log import table

    now = budget.estimate(experiment, experiment.stages[stage_name])
    wanted, device = aot.used(str(error)), jax.sharding.get_mesh().devices.flat[0]
    if wanted and "temporaries" in str(error):
        now = now.compiled(now.arguments, wanted)
    values = dataclasses.asdict(now) | {"total": now.total}
    rows = [[label, size(values[key])] for key, label in LABELS.items() if key in values]
    if chip := chips.of_device(device):
        rows.append([f"usable of {chip.name}", size(chip.memory)])
    lines = [
        f"{stage_name} does not fit the memory of {device.device_kind}: {str(error).splitlines()[0]}",
        "A chip's part of the step, from its shapes (other temporaries: at least):",
        table(("", "bytes"), rows),
        knob_table([dataclasses.asdict(k) for k in budget.knobs(experiment, stage_name, now)]),
    ]
    return "\n".join(lines)


def main(_, overrides: dict):
    from absl import flags as absl_flags
    from absl import logging

    logging.set_verbosity(logging.ERROR)
    from janus_jax.checks import check
    from janus_jax.experiment import ConfigError, read

    f = absl_flags.FLAGS
    try:
        chip, count = chips.parse_topology(f.topology)
        experiment, wrong = read(f.config, overrides, target=f.topology)
        check(experiment, count, files=False, known=wrong)
        found, compiler = aot.devices(chip, count, f.topology)
        if found[0].platform == "gpu" and experiment.model.attention == "cudnn":
            raise ValueError(f"model.attention is 'cudnn': {aot.CUDNN_UNSEEN}: plan with auto")
    except (ConfigError, ValueError) as error:
        sys.exit(str(error))
    out = sys.stderr if f.json == "-" else sys.stdout
    plan = run(experiment, chip, count, found, compiler, lambda text: print(text, file=out, flush=True))
    if f.json == "-":
        print(json.dumps(plan))
    elif f.json:
        pathlib.Path(f.json).write_text(json.dumps(plan, indent=1))
    sys.exit(0 if all(s["fits"] for s in plan["stages"].values()) else 1)


def run(experiment, chip: chips.Chip, count: int, found, compiler: str, say=print) -> dict:
    """The plan of every stage as plain data, told to `say` as it goes."""
    from janus_jax import sharding as sh

    m = experiment.mesh
    mesh = sh.make_mesh(m.data, m.fsdp, m.tensor, found)
    plan = {"chip": chip.name, "chips": count, "mesh": dict(mesh.shape), "compiler": compiler, "stages": {}}
    shape = " x ".join(f"{axis} {n}" for axis, n in mesh.shape.items())
    say(f"{count} x {chip.name}, mesh {shape}\ncompiled by {compiler}\n")
    with sh.mesh_context(mesh):
        for name in experiment.stages:
            plan["stages"][name] = study(experiment, name, chip)
            say(tables(plan, name, plan["stages"][name]) + "\n")
    lengths = [
        f"tokens of an example of {name}: " + ", ".join(f"{task} {n:.0f}" for task, n in s["lengths"].items())
        for name, s in plan["stages"].items()
    ]
    plan["assumed"] = [
        *roofline.ASSUMPTIONS,
        *aot.assumptions(mesh.devices.flat[0]),
        *lengths,
        "peaks and typical MFU, with sources: janus_jax/chips.py",
    ]
    say("Assumed\n" + "\n".join(f"- {line}" for line in plan["assumed"]))
    return plan


if __name__ == "__main__":
    from absl import app
    from absl import flags as absl_flags

    from janus_jax.experiment import split_flags

    absl_flags.DEFINE_string("config", None, "A file with get_config(); see configs/.", required=True)
    absl_flags.DEFINE_string("topology", "cpu:8", "Chips: v5p:4x4x8, v5e:16x16, a100-40gb:128, cpu:8, ...")
    absl_flags.DEFINE_string("json", "", "Also write the plan here; - for stdout (tables then go to stderr).")
    rest, overrides = split_flags(sys.argv)
    app.run(functools.partial(main, overrides=overrides), argv=rest)
