"""Training Janus itself (paper section 3.3): packed rows of understanding, text and generation, one
step for all."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.config.schema import Experiment
from janus_jax.data.kept import keep_problems, kinds_kept, only
from janus_jax.data.kept_stats import KeptStats
from janus_jax.data.read_stats import ReadStats
from janus_jax.distributed import arrays, processes
from janus_jax.model import batch as bt
from janus_jax.model import config as model_config
from janus_jax.model import flops
from janus_jax.model import sharding as sh
from janus_jax.model.config import JanusConfig
from janus_jax.training import attention_check, init, probes, stage_data, stage_mixture
from janus_jax.training import batch_shapes as bs
from janus_jax.training.loss import counts, janus_loss
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.step import train_step
from janus_jax.training.vq_encoder import warn_of_rounding
from janus_jax.weights.load import export as export_weights

PACKS = True
NARROWS = False
TEACHERS = ()
OPTIONS = {
    "keep": "",  # kinds of example, such as "understanding+text": the others are taken out
    "probe_every": 0,  # steps between those that training/probes.py looks at; 0: none
}
VALIDATES = ("loss", *(f"{kind}_loss" for kind in bt.TASKS))


def problems(experiment: Experiment, name: str) -> list[str]:
    stage = experiment.stages[name]
    path = f"stages.{name}"
    found = []
    if stage.rows is None:
        found.append(
            f"{path}.rows: missing; task janus packs examples into rows: give count, length and "
            "images"
        )
    model = experiment.model
    lines = experiment.draws(name).values()
    missing = [child for child in stage.trainable if child not in model.children]
    if missing and set(missing) <= set(model_config.CHILDREN):
        found.append(
            f"{path}.trainable has {', '.join(missing)}: with model.understanding = "
            f"{model.understanding!r}, model.generation = {model.generation!r}, model.drawing = "
            f"{model.drawing!r} and model.image_head = {model.image_head!r} this model has none; leave it out"
        )
    coded = {"generation_encoder", "semantic_decoder"} & set(stage.trainable)
    if coded and not model.is_janus:
        found.append(
            f"{path}.trainable has {', '.join(sorted(coded))}: what an adaptor reads of the "
            "tokenizer is trained by the tasks vq and semantic (or kl), not by task janus; leave it out"
        )
    if experiment.deterministic and experiment.model.attention == "cudnn":
        found.append(
            "model.attention is 'cudnn': its gradients are added up in any order, and deterministic "
            "is true; take auto"
        )
    if "generation_encoder" in stage.trainable and any(d.image_ids for d in lines):
        found.append(
            f"{path}.trainable has generation_encoder: training it would change the ids that are "
            f"stored; freeze it, or take image_ids out of the data sets"
        )
    stored = sorted(line for line, d in experiment.draws(name).items() if d.image_ids)
    vq = model.generation_encoder
    if stored and (vq.latent == "kl" or vq.depth > 1 or vq.scales):
        what = (
            f"depth is {vq.depth}" if vq.depth > 1 else f"scales is {vq.scales}, grids of their own"
        )
        what = "latent is 'kl', which has latents" if vq.latent == "kl" else what
        found.append(
            f"data.datasets.{stored[0]}.image_ids is {experiment.draws(name)[stored[0]].image_ids!r}: ids of a VQ "
            f"tokenizer of one code a token, and model.generation_encoder.{what}; leave image_ids "
            "out, so that pictures are encoded as they are read"
        )
    options = OPTIONS | stage.options
    found += probes.probe_problems(path, options["probe_every"], stage)
    wrong = keep_problems(path, options["keep"], vars(stage.ratio))
    return found + (wrong or _unlearned(experiment, name, options["keep"]))


def _unlearned(experiment: Experiment, name: str, keep: str) -> list[str]:
    """What the config asks of kinds that a stage draws and takes out."""
    ratio = vars(experiment.stages[name].ratio)
    gone = [kind for kind in bt.TASKS if ratio[kind] and kind not in kinds_kept(keep)]
    why = f"and stages.{name}.options.keep is {keep!r}"
    best = experiment.checkpoints.best
    found = [
        f"checkpoints.best is {best!r}, {why}: no {kind} is left to measure it by; take a loss of "
        "what is kept, or validation_loss"
        for kind in gone
        if best == f"validation_{kind}_loss"
    ]
    halves = [kind for kind in gone if kind != "text"]
    count = experiment.evaluation.count
    if count and halves and name == list(experiment.stages)[-1]:
        found.append(
            f"evaluation.count is {count}, {why}: it would show {' and '.join(halves)} of parts that "
            "never learned it; set it to 0"
        )
    return found


def without(experiment: Experiment, name: str) -> tuple[str, ...]:
    stage = experiment.stages[name]
    draws = "generation" in kinds_kept((OPTIONS | stage.options)["keep"])
    encodes = draws and not experiment.uses_ids(name)
    learns = "generation_encoder" in stage.trainable
    needed = encodes or learns or not experiment.model.is_janus
    return () if needed else ("generation_encoder",)


def init_state(key, model: JanusConfig, tx, trainable, without=(), options=OPTIONS):
    return init.init_janus(key, model, tx, trainable, without)


def init_random(seed: int, model: JanusConfig, names: tuple[str, ...], options=OPTIONS) -> dict:
    return init.random_children(jax.random.key(seed + 1), model, names)


def for_devices(plan: StagePlan, say) -> StagePlan:
    """With the attention kernel that works on these devices, the same on all processes."""
    model = plan.model
    kind = attention_check.working(
        model, plan.stage.rows.length, say, plan.experiment.deterministic
    )
    processes.require_equal({"attention kernel": kind})
    if "generation_encoder" not in plan.without:
        warn_of_rounding(say)
    return dataclasses.replace(plan, model=dataclasses.replace(model, attention=kind))


def step(plan: StagePlan):
    return functools.partial(train_step, tx=plan.tx, accumulate=plan.stage.accumulate)


def validate(plan: StagePlan):
    """In as many parts as a step is, for no more memory."""

    def of_part(state, batch):
        undivided = dict.fromkeys(bt.TASKS, jnp.float32(1))
        _, metrics = janus_loss(state.model(), batch, undivided)
        by_kind = {
            f"{kind}_loss": (metrics[f"{kind}_loss"], n) for kind, n in counts(batch).items()
        }
        total, tokens = map(sum, zip(*by_kind.values(), strict=True))
        return {"loss": (total, tokens)} | by_kind

    def sums(state, batch):
        parts = jax.tree.map(lambda x: sh.parts(x, plan.stage.accumulate), batch)
        each = jax.lax.map(lambda part: of_part(state, part), parts)
        return jax.tree.map(jnp.sum, each)

    return of_part if plan.stage.accumulate == 1 else sums


def batches(plan: StagePlan, sources: dict, processor, workdir, say) -> stage_data.StageData:
    """The stage's mixture, packed into this process's part of its batches."""
    stats = ReadStats if plan.keeps == bt.TASKS else functools.partial(KeptStats, plan.keeps)
    data = stage_data.open_batches(plan, sources, processor, workdir, say, stats)
    # This process's part of the step's rows; a share that several processes feed counts once.
    part = arrays.batch_share()[1] / jax.process_count()

    def next_batch(i):
        batch, examples = only(plan.keeps, *next(data))
        if plan.model.image_head == "diffusion":
            batch = batch | {"noise": noise_numbers(i, len(batch["tokens"]))}
        how = plan.experiment.model, plan.stage.trainable, plan.adapted
        seen = batch_facts(batch, examples, *how)
        return arrays.put_batch(batch), {key: part * n for key, n in seen.items()}

    with_ids = [entry.source for entry in data.mixture.entries if entry.ids]
    return stage_data.StageData(next_batch, data.stats, data.mixture, data, with_ids)


def noise_numbers(i: int, rows: int) -> np.ndarray:
    """Of batch i, uint32 [rows]: each row of a stage has a number of its own, whatever the mesh; rows: of
    this process."""
    share, of = arrays.batch_share()
    return ((i * of + share) * rows + np.arange(rows)).astype(np.uint32)


def batch_facts(
    batch: dict,
    examples: np.ndarray,
    model,
    trainable: tuple[str, ...],
    adapted: dict | None = None,
) -> dict:
    """What to log about a batch and its examples (numpy; see batch.py), in numbers that add up over
    steps: examples by task and truncated, positions by task and in all, pictures of both kinds,
    model FLOPs of the step.

    model: the JanusConfig; trainable: the children that learn; adapted: as of `flops.count`. Of this
    process's rows only.
    """
    by_task = np.bincount(batch["tasks"].ravel(), minlength=len(bt.TASKS) + 1)[1:]
    filled = lambda slots, box: float((slots > 0).sum()) / box.tokens
    out = bt.count_examples(examples) | {
        f"positions_{t}": int(n) for t, n in zip(bt.TASKS, by_task, strict=True)
    }
    out |= {"positions": batch["tasks"].size, "tokens": int((batch["segment_ids"] > 0).sum())}
    out["images"] = filled(batch["understanding_slots"], model.understanding_encoder)
    out["images"] += filled(bt.image_slots(batch), model.generation_encoder)
    work = flops.of_batch(batch, model)
    out["flops"] = sum(flops.count(model, trainable, work, adapted).values())
    return out


def batch_shapes(plan: StagePlan) -> dict:
    rows = plan.stage.rows
    kept = lambda images, kind: images if kind in plan.keeps else 0
    shapes = bt.shapes(
        rows.count,
        rows.length,
        kept(rows.understanding_images, "understanding"),
        kept(rows.generation_images, "generation"),
        plan.model,
        "generation" in plan.keeps and plan.experiment.uses_ids(plan.name),
    )
    if plan.model.image_head == "diffusion":
        shapes["noise"] = (rows.count,), np.uint32
    return bs.abstract(shapes)


def read_first(plan: StagePlan, processor):
    def read(line, source, index: int) -> str:
        kind = line.kind
        encoder = dataclasses.replace(
            stage_mixture.encoder(plan, processor), form=plan.stage.form(line)
        )
        record = encoder.read(source, index)
        at = 0 if line.continues else None
        example = encoder(kind, record, np.random.default_rng(0), at)
        text = f"{len(example['tokens'])} tokens"
        found = {}
        if kind != "text":
            found = encoder.pixels(kind, source, index, record, example)
        senses = {name: len(found.pop(name, ())) for name in plan.model.senses}
        shown = sum(len(x) for name, x in found.items() if name != "generation_sizes")
        if shown:
            text += f" with {shown} {'pictures' if shown > 1 else 'picture'}"
        text += "".join(f" with {n} x {name}" for name, n in senses.items() if n)
        if "image_ids" in record:
            text += " as ids"
        if example["example"][0] & bt.TRUNCATED:
            text += ", cut to a row"
        if example.get("rest"):
            text += ", the rest in later rows"
        return text

    return read


def export(plan: StagePlan, directory, params: dict, processor):
    export_weights(directory, params, plan.experiment.model, processor)
