"""`janus-jax data reference`: the log-probabilities of a stage's pairs under weights that do not learn,
computed once, so that the stage needs no second model beside the one that learns."""

import dataclasses
import functools
import logging
import sys

import jax
import numpy as np

from janus_jax.common import cli, outputs
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.progress import Progress
from janus_jax.config import fields
from janus_jax.config.read import read
from janus_jax.data.packing import assemble
from janus_jax.data.pair_encoder import most_pairs, split
from janus_jax.data.row_stream import BAD
from janus_jax.distributed import arrays, compile_cache
from janus_jax.distributed.platform import require_devices
from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.training import check_config, preflight_data, stage_mixture, stored_reference
from janus_jax.training import preference_loss as pl
from janus_jax.training.log_probabilities import log_probabilities
from janus_jax.training.stage_plan import StagePlan
from janus_jax.weights.load import load


def of_records(model, plan: StagePlan, name: str, source, processor, progress=None):
    """(log-probabilities of the pairs of a data set, float32 [records, 2], NaN where one cannot be
    used; why: record -> the error). Prompts are whole: no chance is taken."""
    line = plan.experiment.data.datasets[name]
    encoder = dataclasses.replace(
        stage_mixture.encoder(plan, processor), dropout=0.0, first=0.0, form=plan.stage.form(line)
    )
    rows = plan.stage.rows
    most = rows.understanding_images, rows.generation_images
    out = np.full((len(source), 2), np.nan, np.float32)
    bad = {}
    waiting = [[]]  # rows of (record, example, pixels)
    progress = progress or (lambda count: None)

    def compute():
        of_rows = _sums(model, plan, processor, [row for row in waiting if row])
        for row, sums in zip(waiting, of_rows):
            for (i, _, _), pair in zip(row, sums):
                out[i] = pair
        waiting[:] = [[]]

    for i in range(len(source)):
        progress(1)
        try:
            record = encoder.read(source, i)
            example = encoder(line.kind, record, np.random.default_rng(0))
            pixels = (
                encoder.pixels(line.kind, source, i, record, example) if line.kind != "text" else {}
            )
        except BAD as error:
            bad[i] = error
            continue
        taken = np.sum([_size(x) for _, x, _ in waiting[-1]], axis=0) if waiting[-1] else 0
        if (taken + np.array(_size(example)) > (rows.length, *most)).any():
            if len(waiting) == rows.count:
                compute()
            else:
                waiting.append([])
        waiting[-1].append((i, example, pixels))
    if waiting[0]:
        compute()
    return out, bad


def _size(example: dict) -> tuple[int, int, int]:
    images = (len(example[f"{kind}_images"]) for kind in bt.SLOTS)
    return len(example["tokens"]), *images


def _sums(model, plan: StagePlan, processor, rows: list) -> np.ndarray:
    """Float32 [rows, P, 2]: of the pairs in each row."""
    made = [_row(plan, row) for row in rows]
    made += made[-1:] * (plan.stage.rows.count - len(made))
    batch = {name: np.stack([row[name] for row in made]) for name in made[0]}
    batch = arrays.put_batch(split(batch, processor.tokenizer.bos))
    found = _computed(model, batch, most=most_pairs(plan.stage.rows.length))
    return np.asarray(found)[: len(rows)]


def _row(plan: StagePlan, row: list) -> dict:
    """A row of a batch (numpy), its pictures too."""
    size = plan.stage.rows
    out = assemble([example for _, example, _ in row], size.length)
    counts = size.understanding_images, size.generation_images
    for name, (shape, dtype) in bt.image_shapes(1, *counts, plan.model).items():
        out[name] = np.zeros(shape[1:], dtype)
        opened = [x for _, _, pixels in row for x in pixels.get(name, ())]
        out[name][: len(opened)] = opened or 0
    return out


@functools.partial(jax.jit, static_argnames="most")
def _computed(model, batch, *, most: int):
    return pl.of_halves(log_probabilities(model, batch, model.image_ids(batch)), batch, most)


def reference_command(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    logging.getLogger("jax").setLevel(logging.WARNING)
    require_devices()
    compile_cache.keep()
    experiment, wrong = read(f.config, overrides)
    check_config.check(experiment, jax.device_count(), known=wrong)
    stages = [n for n, stage in experiment.stages.items() if stage.task.startswith("dpo")]
    name = f.stage or next(iter(stages), "")
    if name not in stages:
        raise UsageError(
            f"--stage={name}: no stage of task dpo or dpo_lora; there is {', '.join(stages) or 'none'}"
        )
    plan = StagePlan.of(experiment, name)
    weights = f.model or plan.stage.init[0]
    if weights == "previous":
        raise UsageError("--model: missing; the stage begins with another's, name its directory")
    if not f.model and len(plan.stage.init) > 1:
        raise UsageError(
            f"--model: missing; stages.{name}.init names {len(plan.stage.init)} weights, and a reference "
            "is of one whole Janus: name it"
        )
    outputs.require_writable(f.out, "--out")
    sources, report = preflight_data.open_sources(experiment, [])
    report.require()
    m = experiment.mesh
    with sh.mesh_context(sh.make_mesh(m.data, m.fsdp, m.tensor)):
        model, processor = load(weights, f.dtype, unrolled=False)
        datasets = {}
        found = {}
        for data, line in experiment.draws(name).items():
            source = sources[data]
            with Progress(data, len(source)) as progress:
                found[data], bad = of_records(model, plan, data, source, processor, progress)
            datasets[data] = {
                "content": source.fingerprint, "form": plan.stage.form(line), "bad": sorted(bad),
            }  # fmt: skip
            told = f"{data}: {len(source):,} pairs of {line.path}"
            if bad:
                told += f", {len(bad):,} could not be used, the first: {next(iter(bad.values()))}"
            print(told, flush=True)
    facts = stored_reference.facts_of(processor, str(weights))
    stored_reference.write(f.out, facts, datasets, found)
    print(f"{f.out}: read by --config.stages.{name}.options.reference={f.out}")
    return 0


def define_flags(into):
    define = cli.Definer(into)
    define.path(
        "config", None, "A file with get_config() that has a stage of task dpo.", required=True
    )
    define.text("stage", "", "Which stage; by default the first of task dpo or dpo_lora.")
    define.path("model", None, "Whole weights; by default the first of the stage's init.")
    define.choice("dtype", None, ("float32", "bfloat16"), "By default as stored.")
    define.output("out", None, "The folder of the log-probabilities.", required=True)


COMMAND = cli.Command(
    "python -m janus_jax.data reference",
    "The log-probabilities of a stage's pairs under weights that do not learn, computed once.",
    "python -m janus_jax.data reference --config=configs/dpo.py --out=data/reference",
    define_flags,
    fields.field_lines,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data reference`."""
    return cli.run(COMMAND, reference_command, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
