"""What a run has learned: drawn, asked, scored and written into its work directory."""

import functools
import io
import json
import pathlib
import time

import numpy as np
from PIL import Image

from janus_jax.checkpoint.history import read_config
from janus_jax.checkpoint.inspect import CHECKPOINTS, RUN_CONFIG
from janus_jax.common import outputs, provenance
from janus_jax.common.exit_codes import UsageError
from janus_jax.common.files import has_weights
from janus_jax.common.text import table
from janus_jax.config.schema import Evaluation, Experiment
from janus_jax.data.editing import are_captions
from janus_jax.eval import result
from janus_jax.eval.benchmark import HALVES, load
from janus_jax.model.guest import own_jax
from janus_jax.sample.generate import generate
from janus_jax.sample.understand import understand_batch
from janus_jax.weights.load import load as load_weights
from janus_jax.weights.source import open_source

RESULTS = "evaluation"  # the folder of a run's results
RECORDS = "emoji"  # the benchmark that takes any data set's own records
NAMED = {"generation": "drawing", "understanding": "answering"}


def evaluate(
    experiment: Experiment,
    sources: dict,
    weights,
    directory: pathlib.Path,
    say,
    settings: Evaluation,
):
    """Writes results.json and pictures.png, and says the tables; earlier ones that differ are
    kept beside them. Each half's whole result lies in a folder of RESULTS.

    Args:
        experiment: the run's config.
        sources: its data sets, opened, by name.
        weights: a weights directory, or whatever else `load` knows.
        directory: where all of it goes.
        say: hears the progress and the tables.
        settings: how much is drawn and asked, and how.
    """
    say("drawing and answering")
    weighed = functools.cache(lambda: load_weights(weights))

    def loaded():
        bound = (functools.partial(do, *weighed()) for do in (generate, understand_batch))
        return *bound, processor

    opened = open_source(weights)
    processor = opened.processor()
    model = provenance.of_model(str(weights), opened, processor, None)
    results = {}
    told = []
    sheet = None
    for half, task, asked in asked_of(experiment, sources, settings):
        begun = time.time()
        kept = task.settings(asked, model, processor)
        folder = directory / RESULTS / f"{task.name}-{half}-{provenance.settings_mark(kept)}"
        provenance.begin(folder, kept)
        result.fill(task, asked, folder, kept, loaded, (0, 1))
        report = result.finish(task, asked, folder, kept, begun, say)
        results[NAMED[half]] = {
            name: [score["value"], score["chance"], score["of"]]
            for name, score in report["scores"].items()
        }
        heading = task.module.ABOUT
        if half == "generation":
            sheet = Image.open(folder / "sheet.png")
            with own_jax(weighed()[0]):
                results["tokenizer"] = task.module.tokenizer(weighed()[0], asked)
            heading += (
                f" (guidance {kept['cfg_scale']:g}, temperature {kept['temperature']:g}; "
                f"the tokenizer alone: {results['tokenizer']:.2f})"
            )
        told.append(f"{heading}\n{scores_table(report, half)}")
    for attribution in sorted({getattr(source, "attribution", "") for source in sources.values()}):
        told += [attribution] if attribution else []
    made = {"results.json": json.dumps(results, indent=2)}
    if sheet is not None:
        drawn = io.BytesIO()
        sheet.save(drawn, "PNG")
        made["pictures.png"] = drawn.getvalue()
    kept = [outputs.replace(directory / name, content) for name, content in made.items()]
    say("\n".join(["", "\n\n".join(told), *filter(None, kept), ""]))


def scores_table(report: dict, half: str) -> str:
    """A report's scores for people."""
    rows = [
        [
            name,
            score["value"],
            "{:.2f} to {:.2f}".format(*score["interval"]),
            score["chance"],
            score["of"],
        ]
        for name, score in report["scores"].items()
    ]
    of = {"generation": ("task", "pictures"), "understanding": ("question", "questions")}[half]
    return table((of[0], "score", "95 %", "chance", of[1]), rows)


def asked_of(experiment: Experiment, sources: dict, settings: Evaluation) -> list[tuple]:
    """(half, Task, what is asked) of each half that the data sets teach: of the world that all of
    them are of, else of their own records."""
    kinds = {name: experiment.data.datasets[name].kind for name in sources}
    first = {
        kinds[name]: s
        for name, s in reversed(sources.items())
        if kinds[name] != "generation" or are_captions(s)  # edits are no prompts alone
    }
    seed = experiment.seed + 1000
    rng = np.random.default_rng(seed)
    name = chosen(sources)
    how = dict(seed=seed, cfg_scale=settings.cfg_scale, temperature=settings.temperature)
    found = []
    for half in reversed(HALVES):
        if half not in first:
            continue
        if name != RECORDS:
            count = settings.count if half == "generation" else max(settings.count // 2, 1)
            task = result.Task(half, name, f"{name}:{count}?seed={seed}", **how)
            asked = task.read()
        else:
            task = result.Task(half, name, f"{settings.count} records of {first[half]!r}", **how)
            pictures = () if half == "understanding" else (task.each,)
            asked = load(half, name).of_source(first[half], rng, settings.count, *pictures)
        if asked:
            found.append((half, task, asked))
    return found


def chosen(sources: dict) -> str:
    """The benchmark that scores a run: the world that all its data sets name, else their own
    records."""
    named = {getattr(source, "scored_by", RECORDS) for source in sources.values()}
    return named.pop() if len(named) == 1 else RECORDS


def run_of(workdir: pathlib.Path) -> Experiment:
    """The config of a run, from its work directory. Raises UsageError where there is none."""
    path = workdir / RUN_CONFIG
    if not path.is_file():
        raise UsageError(
            f"--workdir={workdir}: no {RUN_CONFIG} there, so no run; name the --workdir of one"
        )
    return read_config(path)[0]


def last_stage(experiment: Experiment, workdir: pathlib.Path) -> pathlib.Path:
    """The weights of the last stage that is done. Raises UsageError where none is."""
    done = [name for name in experiment.stages if has_weights(workdir / name)]
    if not done:
        raise UsageError(
            f"--workdir={workdir}: no stage of it is done; give "
            f"--model={workdir}/{CHECKPOINTS}/<stage>, or wait"
        )
    return workdir / done[-1]
