"""What a step of reinforcement learning would take (task grpo): besides the update, the rollout that
it learns from and the log-probabilities before it. One comes after the other, so a chip's memory has
to hold the largest of them, not their sum."""

import dataclasses

import jax

from janus_jax.common.text import size, table
from janus_jax.distributed.chips import Chip
from janus_jax.model import flops
from janus_jax.model import sharding as sh
from janus_jax.model.serving import cache_dtype
from janus_jax.plan import aot, audit, memory, program, report, sampling
from janus_jax.sample import cache as caches
from janus_jax.sample import programs, reported
from janus_jax.sample.rollouts import READ, on_each
from janus_jax.training import rewards
from janus_jax.training.grpo_options import EMA, Counts
from janus_jax.training.stage_plan import StagePlan

ASSUMED = (
    "where a step draws and answers: prompts as long as a row has room for, no round of options.resample, "
    "every place of the cache read with each token (on GPUs the filled ones); reading prompts, decoding "
    "image ids to pictures and rewards are not in the seconds, nor are a reward's own weights in the bytes"
)
PARTS = ("weights that decode", "drawing", "answering", "scoring", "update")


@dataclasses.dataclass(frozen=True)
class Part:
    """What a chip holds and takes in one part of a step, beside the trainer's state and the reference.

    weights: in the form that decodes; cache: keys and values; batch: of the step; temporaries: as the
        compiler says. Bytes. seconds: of all its turns, None where nothing is estimated.
    turns: how often its program runs.
    """

    weights: float = 0.0
    cache: float = 0.0
    batch: float = 0.0
    temporaries: float = 0.0
    seconds: float | None = None
    turns: int = 1
    error: str = ""

    @property
    def own(self) -> float:
        return self.weights + self.cache + self.batch + self.temporaries


@dataclasses.dataclass(frozen=True)
class Rows:
    """What an engine (sample/engine.py) runs of one kind of output. count: rows at once; rounds:
    how often they are filled; length: places of their cache; tokens: that each of them writes."""

    count: int
    rounds: int
    length: int
    tokens: int
    kind: int

    @classmethod
    def of(cls, wanted: int, prompt: int, tokens: int, kind: int, asked: int = 0) -> "Rows":
        """asked: options.rollout_rows."""
        counts = (reported.whole_groups(asked),) if asked else caches.row_counts()
        count = next((n for n in counts if n >= wanted), counts[-1])
        length = caches.cache_length(prompt + tokens)
        return cls(count, -(-wanted // count), length, tokens, kind)


def study_rollouts(experiment, name: str, chip: Chip) -> dict:
    """`report.study` of the update, with `parts`: what each part of a step holds and takes, and
    `step`: its seconds, and drawings and answers a second. It fits if the largest part does."""
    plan = StagePlan.of(experiment, name)
    counts = Counts.of(plan.stage, plan.options)
    found = report.study(experiment, name, chip, work_of(plan, counts))
    state = plan.state()
    held = found["bytes"]
    kept = sum(held[key] for key in ("trainable", "frozen", "moments", "average"))
    reference = reference_bytes(plan, state)
    parts = decoded(plan, chip, counts) | {"scoring": scored(plan, chip, state, counts)}
    times = (found["program"] or {}).get("seconds")
    parts["update"] = Part(
        batch=held["batch"], temporaries=held["total"] - kept - held["batch"], seconds=times,
        turns=int(plan.options["updates"]), error=found["error"],
    )  # fmt: skip
    total = {part: kept + reference + x.own for part, x in parts.items()}
    errors = [f"{part}: {x.error}" for part, x in parts.items() if x.error]
    found |= {
        "held": {"state": kept, "reference": reference},
        "parts": {
            part: dataclasses.asdict(x) | {"total": total[part]} for part, x in parts.items()
        },
        "peak": max(total.values()),
        "fits": not errors and max(total.values()) <= chip.memory,
        "error": "\n".join(errors),
        "assumed": ASSUMED,
        "step": step_of(parts, counts, plan.stage.steps),
        "examples": {"understanding": counts.answers, "text": 0, "generation": counts.drawings},
    }
    if not found["fits"] and not found["savings"]:
        now = memory.estimate(plan, state)
        found["savings"] = [dataclasses.asdict(s) for s in memory.savings(experiment, name, now)]
    return found


def work_of(plan: StagePlan, counts: Counts) -> flops.Work:
    """The work of an update: each row has one output, a guided drawing its unconditional twin too,
    and no picture is encoded into ids."""
    mean = flops.lengths(plan.stage, plan.model)
    tokens = plan.model.generation_encoder.tokens
    segments = {"generation": twins(plan) * counts.drawings, "understanding": counts.answers}
    each = {task: n * mean[task] for task, n in segments.items()}
    return flops.Work(
        tokens=sum(each.values()),
        pairs=sum(x * (mean[task] + 1) / 2 for task, x in each.items()),
        text=float(counts.answers * int(plan.options["max_new_tokens"])),
        image=float(counts.drawings * tokens),
        understanding_images=float(counts.answers),
        generation_images=0.0,
    )


def twins(plan: StagePlan) -> int:
    """Segments of a drawing in its row: two where it is guided."""
    return 1 if plan.options["cfg_scale"] == 1 else 2


def reference_bytes(plan: StagePlan, state) -> float:
    """Of what task grpo keeps the policy near: a copy of what learns, of what does not too where the
    reference is named; nothing without a divergence, where it is the average that the state has, or
    where it is the Janus without its low-rank pairs."""
    path = plan.options["reference"]
    if not plan.options["kl"] or path == EMA or (plan.adapted and not path):
        return 0.0
    of = (state.trainable, state.frozen) if path else state.trainable
    return memory.shard_bytes(of)


def decoded(plan: StagePlan, chip: Chip, counts: Counts) -> dict[str, Part]:
    """The parts of a rollout, by name."""
    rows = plan.stage.rows
    tokens = plan.model.generation_encoder.tokens
    branches = 1 if plan.options["cfg_scale"] in (0, 1) else 2
    model = sh.concrete(sampling.abstract(plan.model, None))
    # The tokenizer of pictures is the trainer's own.
    bytes_ = lambda model: memory.shard_bytes(model) - memory.shard_bytes(model.generation_encoder)
    kept = split = bytes_(model)
    judged = "self" in dict(rewards.parsed(str(plan.options["rewards"]) or "none"))
    if judged and plan.options["kl"]:
        kept += split  # the reference judges
    # The stacked layers in the compute type are there until the last of them is taken apart.
    found = {"weights that decode": Part(weights=kept, temporaries=split)}
    if plan.options["rollout_weights"] == "whole":
        model = on_each(model, lambda x, sharding: x.update(sharding=sharding))
        kept += memory.shard_bytes([getattr(model, name) for name in READ if hasattr(model, name)])
    most = int(plan.options["max_new_tokens"])
    wanted = {
        "drawing": (
            branches * counts.drawings,
            rows.length // twins(plan) - tokens,
            tokens,
            programs.IMAGE,
        ),
        "answering": (counts.answers, rows.length - most, most, programs.TEXT),
    }
    compiled = {}  # one program for both where they have the same rows and places
    for part, (n, *how) in wanted.items():
        if n:
            engine = Rows.of(n, *how, int(plan.options["rollout_rows"]))
            at = engine.count, engine.length
            if at not in compiled:
                lowered = sampling.lower(model, *at, reported.with_log_probability)
                compiled[at] = aot.compile_lowered(lowered, plan.experiment.deterministic)
            made = written(plan, compiled[at], chip, engine)
            found[part] = dataclasses.replace(made, weights=kept)
    return found


def written(plan: StagePlan, compiled: aot.Compiled, chip: Chip, rows: Rows) -> Part:
    """A rollout's `programs.write`, run as often as its engine writes a token."""
    llm = plan.model.transformer
    width = cache_dtype(jax.numpy.dtype(plan.model.dtype)).itemsize
    places = rows.count // sh.batch_shards() * rows.length
    turns = rows.rounds * rows.tokens
    return Part(
        cache=2 * llm.layers * places * llm.width // sh.tensor_shards() * width,
        temporaries=compiled.temporaries or 0.0,
        seconds=audited(compiled, chip, rows.kind, turns, 1 - rows.tokens / 2 / rows.length),
        turns=turns,
        error=compiled.error,
    )


def audited(
    compiled: aot.Compiled, chip: Chip, kind: int, turns: int, filled: float
) -> float | None:
    """Seconds of `turns` tokens of every row; filled: as `audit.audit` has it."""
    if compiled.module is None or not (compiled.own or chip.name == "cpu"):
        return None
    mesh = dict(jax.sharding.get_mesh().shape)
    found = audit.audit(compiled.module, mesh, chip, lambda loop: 1, kind, filled=filled)
    return turns * found.seconds


def scored(plan: StagePlan, chip: Chip, state, counts: Counts) -> Part:
    """The old log-probabilities of a step's rows, and where there is a reference its own."""
    batch = {n: x for n, x in plan.task.batch_shapes(plan).items() if n not in ("old", "reference")}
    now = plan.task.likely(plan.options)
    score = jax.jit(lambda state, batch: now(state.model(), batch))
    compiled = aot.compile_step(score, state, batch, plan.experiment.deterministic)
    stage = dataclasses.replace(plan.stage, accumulate=1)
    work = work_of(plan, counts)
    parts = flops.count(plan.model, (), work)
    module = compiled.module if compiled.own or chip.name == "cpu" else None
    found, _ = program.studied(module, chip, stage, plan.model, work, parts)
    turns = 2 if plan.options["kl"] else 1
    return Part(
        batch=memory.shard_bytes(batch),
        temporaries=compiled.temporaries or 0.0,
        seconds=found and turns * found["seconds"],
        turns=turns,
        error=compiled.error,
    )


def step_of(parts: dict[str, Part], counts: Counts, steps: int) -> dict | None:
    """Seconds of a step, of its parts together, and what it makes a second; None where a part has no
    estimate."""
    times = [x.seconds for part, x in parts.items() if part != "weights that decode"]
    if None in times:
        return None
    seconds = sum(times)
    return {
        "seconds": seconds,
        "drawings_per_s": counts.drawings / seconds,
        "answers_per_s": counts.answers / seconds,
        "days": steps * seconds / 86400,
    }


def rollout_tables(plan: dict, name: str, study: dict) -> str:
    """A study for a reader.

    plan: what `report.run` gives.
    name: of the stage.
    study: of the stage.
    """
    of_update = report.sections(plan, study)
    verdict = of_update.pop("memory of a chip").rpartition(plan["chip"])[2].partition("\n")[2]
    heads = ("part", "weights", "cache", "batch", "temporaries", "with what stays", "turns", "ms")
    rows = [
        [part, *(size(x[key]) if x[key] else "" for key in ("weights", "cache", "batch")),
         size(x["temporaries"]), size(x["total"]), x["turns"],
         None if x["seconds"] is None else 1e3 * x["seconds"]]
        for part, x in study["parts"].items()
    ]  # fmt: skip
    stays = table(
        ("stays", "bytes"),
        [
            ["state of the trainer", size(study["held"]["state"])],
            ["reference", size(study["held"]["reference"])],
        ],
    )
    lines = [
        f"{stays}\n\n{table(heads, rows)}\n",
        f"{size(study['peak'])} at most, of {size(study['memory'])} usable of {plan['chip']}",
        verdict,
    ]
    if step := study["step"]:
        made = [
            f"{step[key]:.3g} {what} a second"
            for key, what in (("drawings_per_s", "drawings"), ("answers_per_s", "answers"))
            if step[key]
        ]
        lines += [
            f"a step takes {step['seconds']:.3g} s by these estimates: {', '.join(made)}, "
            f"{step['days']:.3g} days in all"
        ]
    head = {
        "parameters": of_update.pop("parameters"),
        "a step, a chip's memory and time": "\n".join(lines),
    }
    renamed = {f"the update: {title}": text for title, text in of_update.items()}
    return report.titled(name, head | renamed)
