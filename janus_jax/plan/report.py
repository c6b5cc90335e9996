"""The plan of a config: what each stage would take, as plain data and as tables to read."""

import dataclasses
import functools
import importlib

from janus_jax.common.text import size, table
from janus_jax.distributed import chips
from janus_jax.model import flops
from janus_jax.plan import aot, assumed, collectives, program, roofline
from janus_jax.plan.pictures import picture_tables, study_pictures
from janus_jax.training import task


def study(experiment, name: str, chip: chips.Chip, work=None) -> dict:
    """What one stage would take on the current mesh, as plain data: sizes in bytes, times in
    seconds, FLOPs and bytes of one chip and step.

    experiment: the config.
    name: of the stage.
    chip: what the mesh is made of.
    work: what a step holds, where that is known; else what is expected of full rows.
    """
    import jax

    from janus_jax.model import attention
    from janus_jax.plan import memory
    from janus_jax.training.stage_plan import StagePlan

    mesh = jax.sharding.get_mesh()
    count = mesh.size
    stage = experiment.stages[name]
    model = experiment.model
    kind = attention.choose(model.attention, stage.rows.length, jax.numpy.dtype(model.dtype))
    model = dataclasses.replace(model, attention=kind)
    stage_plan = StagePlan(experiment, name, model)
    step, state, batch = memory.lower_inputs(stage_plan)
    traced = memory.estimate(stage_plan, state, batch)
    compiled = aot.compile_step(step, state, batch, experiment.deterministic)
    now = traced
    if compiled.temporaries is not None:
        now = traced.compiled(compiled.arguments or traced.arguments, compiled.temporaries)
    total = now.total + compiled.program
    fits = not compiled.error and total <= chip.memory
    work = work or flops.expected(stage, model, experiment.uses_ids(name), stage_plan.keeps)
    parts = flops.count(model, stage.trainable, work, stage_plan.adapted)
    limit, sent, remarks = speed_limit(chip, compiled, stage_plan, state, now, work)
    speeds = functools.partial(roofline.speeds, stage, chip, count, sum(parts.values()), work)
    speed = {
        "bound, all overlapped": speeds(limit.overlapped),
        "bound, nothing overlapped": speeds(limit.in_turn),
    }
    module = compiled.module if compiled.own or chip.name == "cpu" else None
    audited, unread = program.studied(module, chip, stage, model, work, parts)
    if audited:
        speed[program.ESTIMATED] = speeds(audited["seconds"])
    savings = [] if fits else memory.savings(experiment, name, now)
    return {
        "parameters": memory.parameters(state),
        "bytes": dataclasses.asdict(now) | {"program": compiled.program, "total": total},
        "memory": chip.memory,
        "fits": fits,
        "error": compiled.error,
        "savings": [dataclasses.asdict(s) for s in savings],
        "flops": {part: x / count for part, x in parts.items()},
        "work": dataclasses.asdict(work),
        "examples": flops.examples(stage, model, stage_plan.keeps),
        "lengths": flops.lengths(stage, model),
        "collectives": [
            dataclasses.asdict(c) | {"seconds": collectives.seconds(c, chip)} for c in sent
        ],
        "remarks": [*remarks, *unread],
        "bound": dataclasses.asdict(limit),
        "program": audited,
        "speeds": speed,
        "compile_seconds": compiled.seconds,
    }


def speed_limit(chip: chips.Chip, compiled, plan, state, now, work):
    """(how fast a step could be at best, what goes over the links, remarks about both).

    chip: what the mesh is made of.
    compiled: of the step.
    plan: the stage's StagePlan.
    state: its shapes.
    now: the bytes of the step.
    work: what a step is expected to hold.
    """
    from janus_jax.model import sharding as sh
    from janus_jax.plan import memory

    count = sh.batch_shards() * sh.tensor_shards()
    weights = sum(map(sum, memory.parameters(state).values())) / sh.tensor_shards()
    by_shapes = memory.expected_collectives(plan.experiment, plan.stage, state)
    how = (
        "from the shapes (weights gathered twice in the compute type, gradients reduced in float32)"
    )
    sent = compiled.sent
    remarks = compiled.remarks
    if compiled.error:
        sent = by_shapes
        remarks = [f"not compiled: a list {how}"]
    limit = roofline.bound(
        chip,
        roofline.executed(plan.stage, plan.model, work, chip, plan.adapted) / count,
        roofline.memory_traffic(now, plan.model, weights),
        sent if compiled.own or chip.name == "cpu" else by_shapes,
    )
    if not compiled.own and chip.name != "cpu":
        remarks = [*remarks, f"too high; the bound takes {1e3 * limit.links:.2f} ms, {how}"]
    return limit, sent, remarks


def tables(plan: dict, name: str, study: dict) -> str:
    """A study for a reader: kB, MB, GB are powers of ten.

    plan: what `run` gives.
    name: of the stage.
    study: of the stage.
    """
    return titled(name, sections(plan, study))


def titled(name: str, sections: dict[str, str]) -> str:
    """Tables of a stage, each under its title."""
    return "\n\n".join(f"{name}: {title}\n\n{text}" for title, text in sections.items())


def sections(plan: dict, study: dict) -> dict[str, str]:
    """Title -> table, of `tables`."""
    links = links_table(study["collectives"])
    found = {
        "parameters": parameters_table(study["parameters"]),
        "memory of a chip": memory_table(plan["chip"], study),
        "model FLOPs of a chip and step": flops_table(study["flops"]),
        "into a chip over its links, a step": "\n".join([links, *study["remarks"]]),
    }
    if study["program"]:
        found["the compiled program, a chip and step"] = program.told(study["program"])
    return found | {"how fast": speeds_table(study["bound"], study["speeds"])}


def parameters_table(parameters: dict) -> str:
    rows = [[part, f"{t:,}", f"{f:,}"] for part, (t, f) in parameters.items()]
    sums = (f"{sum(x):,}" for x in zip(*parameters.values()))
    return table(("part", "trainable", "frozen"), [*rows, ["all", *sums]])


def flops_table(parts: dict) -> str:
    total = sum(parts.values())
    rows = [[part, f"{x / 1e12:.3g}", f"{x / total:.1%}"] for part, x in parts.items()]
    return table(("part", "TFLOP", "share"), [*rows, ["all", f"{total / 1e12:.3g}", "100%"]])


def links_table(sent: list[dict]) -> str:
    if not sent:
        return "nothing"
    rows = [
        [
            c["kind"],
            "+".join(c["axes"]),
            len(c["group"]),
            c["count"],
            size(c["bytes"]),
            1e3 * c["seconds"],
        ]
        for c in sent
    ]
    return table(("kind", "axes", "group", "count", "bytes", "ms"), rows)


def speeds_table(bound: dict, speeds: dict) -> str:
    least = ", ".join(f"{1e3 * seconds:.1f} ms of {what}" for what, seconds in bound.items())
    rows = []
    for how, speed in speeds.items():
        values = speed | {"ms": 1e3 * speed["seconds"]}
        rows.append([how, *(form.format(values[key]) for key, form in SPEEDS.items())])
    heads = ("", "ms a step", "MFU", "tokens/s", "a chip", "images/s", "days")
    return f"a step of any program takes at least {least}\n{table(heads, rows)}"


SPEEDS = {
    "ms": "{:.1f}", "mfu": "{:.1%}", "tokens_per_s": "{:,.0f}", "tokens_per_s_and_chip": "{:,.0f}",
    "images_per_s": "{:,.0f}", "days": "{:.3g}",
}  # fmt: skip
LABELS = {
    "trainable": "weights, trainable",
    "frozen": "weights, frozen",
    "moments": "moments",
    "average": "average of the weights",
    "batch": "batch",
    "activations": "activations kept for the backward pass",
    "other": "other temporaries",
    "program": "program",
    "total": "total",
}


def memory_table(chip: str, study: dict) -> str:
    """The bytes of a chip, the verdict and, where it does not fit, what would save some."""
    held = study["bytes"]
    rows = [[LABELS[key], size(held[key])] for key in LABELS if held[key] or key != "average"]
    text = table(("", "bytes"), [*rows, [f"usable of {chip}", size(study["memory"])]])
    if study["fits"]:
        return f"{text}\nFITS"
    lines = [text, "DOES NOT FIT", study["error"], savings_table(study["savings"])]
    return "\n".join(line for line in lines if line)


def savings_table(savings: list[dict]) -> str:
    if not savings:
        return (
            "No field of the config would save memory: take more chips, or chips with more memory."
        )
    rows = [[s["flag"], size(s["saves"]), s["price"]] for s in savings]
    text = table(("flag", "saves a chip", "at the price"), rows)
    return f"What would save most, estimated:\n{text}"


def explain_out_of_memory(experiment, stage_name: str, error) -> str:
    """Why a stage's step fails for memory on the current mesh, and three flags that help. Nothing
    is compiled, nothing allocated.

    experiment: the config.
    stage_name: of the stage.
    error: RESOURCE_EXHAUSTED, from compiling or running the step.
    """
    import jax

    from janus_jax.plan import memory
    from janus_jax.training.stage_plan import StagePlan

    device = jax.sharding.get_mesh().devices.flat[0]
    if experiment.stages[stage_name].rows is None:
        first, *_ = str(error).splitlines()
        return (
            f"{stage_name} does not fit the memory of {device.device_kind}: {first}\n"
            f"Lower --config.stages.{stage_name}.batch_size, or take more devices."
        )
    now = memory.estimate(StagePlan.of(experiment, stage_name))
    wanted = aot.used(str(error))
    if wanted and "temporaries" in str(error):
        now = now.compiled(now.arguments, wanted)
    values = dataclasses.asdict(now) | {"total": now.total}
    rows = [[label, size(values[key])] for key, label in LABELS.items() if values.get(key)]
    if chip := chips.of_device(device):
        rows.append([f"usable of {chip.name}", size(chip.memory)])
    first, *_ = str(error).splitlines()
    lines = [
        f"{stage_name} does not fit the memory of {device.device_kind}: {first}",
        "A chip's part of the step, from its shapes (other temporaries: at least):",
        table(("", "bytes"), rows),
        savings_table([dataclasses.asdict(s) for s in memory.savings(experiment, stage_name, now)]),
    ]
    return "\n".join(lines)


def run(experiment, chip: chips.Chip, count: int, found, compiler: str, say=print) -> dict:
    """The plan of every stage as plain data.

    experiment: the config.
    chip: what it is planned for.
    count: how many of them.
    found: the devices to compile for.
    compiler: what compiles, in words.
    say: is told each stage's tables as they come.
    """
    from janus_jax.model import sharding as sh

    m = experiment.mesh
    mesh = sh.make_mesh(m.data, m.fsdp, m.tensor, found)
    plan = {
        "chip": chip.name,
        "chips": count,
        "mesh": dict(mesh.shape),
        "compiler": compiler,
        "stages": {},
    }
    shape = " x ".join(f"{axis} {n}" for axis, n in mesh.shape.items())
    say(f"{count} x {chip.name}, mesh {shape}\ncompiled by {compiler}\n")
    with sh.mesh_context(mesh):
        for name, stage in experiment.stages.items():
            look, show = (study, tables) if stage.rows else (study_pictures, picture_tables)
            if hasattr(task.load(stage.task), "ROLLS"):
                rollouts = importlib.import_module("janus_jax.plan.rollouts")
                look, show = rollouts.study_rollouts, rollouts.rollout_tables
            plan["stages"][name] = look(experiment, name, chip)
            say(show(plan, name, plan["stages"][name]) + "\n")
    plan["assumed"] = assumed.taken_for_granted(plan["stages"], chip, mesh.devices.flat[0])
    say("Assumed\n" + "\n".join(f"- {line}" for line in plan["assumed"]))
    return plan
