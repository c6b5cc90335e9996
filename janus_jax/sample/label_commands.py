"""`python -m janus_jax.data caption|score`: a model's captions and scores for a data set, written as
records that training reads.

The same command goes on where it stopped. Several processes (see distributed/initialize.py) share the
work; each has the whole model on its own devices.
"""

import dataclasses
import functools
import os
import sys

import jax
import numpy as np

from janus_jax.common import cli, provenance
from janus_jax.common.progress import Progress
from janus_jax.config.schema import Data, Dataset
from janus_jax.data.kinds import REQUEST
from janus_jax.data.messages import blank
from janus_jax.data.read_stats import JUDGED
from janus_jax.data.tools import command
from janus_jax.data.tools.command import UNUSABLE, CommandError
from janus_jax.data.tools.to_array_record import open_with_files
from janus_jax.distributed import compile_cache, initialize, processes, shares
from janus_jax.distributed.platform import require_devices
from janus_jax.model import sharding as sh
from janus_jax.sample import caption, label, options, score, scorer
from janus_jax.sample.stopwatch import measured
from janus_jax.weights.load import load
from janus_jax.weights.source import open_source

BATCH = 16  # records, where their number is not given


def caption_settings(f) -> dict:
    """What of the flags changes a caption. Raises UsageError, ValueError."""
    how = {name: f[name].value for name in ("max_new_tokens", "temperature", "top_p", "seed")}
    options.check(**how)
    return {"question": questions_of(f) or REQUEST} | how


def questions_of(f) -> tuple[str, ...]:
    """Raises CommandError for one that asks nothing."""
    if wrong := [question for question in f.question if blank(question)]:
        raise CommandError(f"--question={wrong[0]!r}: asks nothing; give it words, or leave it out")
    return tuple(f.question)


def captioner(f, source, settings: dict, opened):
    """(what reads, what loads the model and gives what labels)."""
    how = {name: settings[name] for name in ("max_new_tokens", "temperature", "top_p", "seed")}

    def loaded():
        return functools.partial(
            caption.captions_of, *load_here(f), questions=settings["question"], **how
        )

    return caption.picture_reader(source), loaded


def score_settings(f) -> dict:
    """What of the flags changes a score. Raises UsageError."""
    if f.scorer:
        given = [name for name in ("model", "base", "dtype", "question") if f[name].present]
        if given:
            raise CommandError(f"--{', --'.join(given)}: --scorer reads none of it; leave it out")
        scorer.scorer_of(f.scorer)
        return {"scorer": f.scorer}
    return {"question": questions_of(f)}


def judge(f, source, settings: dict, opened):
    """As `captioner`."""
    if f.scorer:
        loaded = lambda: functools.partial(scorer.scored_by, scorer.scorer_of(f.scorer))
        return scorer.caption_reader(source), loaded
    tower = opened.config.understanding_encoder
    form = source.dataset.form or "chat"
    read = score.reader(source, opened.processor(), tower, form, settings["question"])
    return read, lambda: functools.partial(score.scores, *load_here(f))


def load_here(f):
    """--model and its processor, on this process's devices."""
    with sh.mesh_context(sh.make_mesh(1, -1, 1, jax.local_devices())):
        return load(f.model, dtype=f.dtype, allow_pickle=f.allow_pickle, base=f.base)


def label_command(f, overrides: dict[str, str], what: str) -> int:
    """The command `what`; returns its exit code."""
    settings_of, labeller, line_of = WAYS[what]
    name, line, experiment = chosen(f, overrides)
    out = command.writable(f.out)
    initialize.initialize(f.coordinator, f.processes, f.process)
    require_devices()
    processes.barrier("begun")
    compile_cache.keep()
    given = processes.all_or_none(lambda: settings_of(f))
    read = lambda: open_with_files(line_of(line, f), experiment, bare=what == "caption")
    source = processes.all_or_none(read)
    job = label.Labelling(
        source, min(f.limit or len(source), len(source)), out, f.field, f.batch or BATCH
    )
    opened, settings = processes.all_or_none(lambda: opened_settings(f, what, given, job))
    processes.require_equal({"what is labelled, and how": provenance.settings_mark(settings)})

    def prepare():
        provenance.begin(out, settings)
        shares.forget(out)
        label.forget_shares(out)

    processes.all_or_none(lambda: processes.is_lead() and prepare())
    initialize.require_shared(out, "--out")
    with measured(), shares.word_left(out):
        if not any(processes.all_gather(job.is_done)):
            work(f, what, job, name, labeller(f, source, given, opened))
        elif processes.is_lead():
            label.tidy(out)  # where a kill came between the records and this
    processes.barrier("labelled")  # JAX would end the others after the first process
    return report(job, what, line, experiment) if processes.is_lead() else 0


def work(f, what: str, job: label.Labelling, name: str, labeller: tuple):
    """Labels this process's share, and waits until all is written."""
    read, load_model = labeller
    loaded = functools.cache(load_model)  # where something is to be done
    share = jax.process_index(), jax.process_count()
    progress = Progress(f"{what} of {name}", 0, "records", speed=lambda n, s: f"{n / s:.3g}/s")
    apply = lambda things: loaded()(things)
    label.label_share(job, read, apply, share, f.threads or os.cpu_count(), progress)
    shares.wait(job.folder, [label.DONE.format(i, share[1]) for i in range(share[1])])
    if processes.is_lead():
        label.gather(job)
    shares.wait(job.folder, [label.RECORDS])


def chosen(f, overrides: dict[str, str]):
    """(name, line, experiment or None) of the data set that the flags name. Raises CommandError."""
    if not (f.config or f.kind):
        f["kind"].parse("generation")
    lines, experiment = command.chosen(f, overrides, UNREAD)
    pictured = {name: line for name, line in lines.items() if line.kind != "text"}
    if len(pictured) != 1:
        told = ", ".join(f"{name} ({line.kind})" for name, line in lines.items())
        raise CommandError(f"give --dataset=NAME of one data set with pictures; there is {told}")
    ((name, line),) = pictured.items()
    return name, line, experiment


def opened_settings(f, what: str, given: dict, job: label.Labelling):
    """(the opened weights or None, all that changes the result). Raises CommandError."""
    opened = None
    told = {"made": what, "data": job.source.fingerprint, "records": job.count, "batch": job.batch}
    told |= {"field": job.field} | given
    if "scorer" not in given:
        if not f.model:
            raise CommandError("--model: missing; name the weights, `quickstart` comes with us")
        opened = open_source(f.model, allow_pickle=f.allow_pickle, base=f.base)
        if opened.config is None:
            raise CommandError(f"--model={f.model}: no whole model but parts of one")
        model = provenance.of_model(f.model, opened, opened.processor(), f.dtype)
        told["model"] = model
    if what == "score" and opened:
        told["form"] = job.source.dataset.form or "chat"
    return opened, told


def report(job: label.Labelling, what: str, line: Dataset, experiment) -> int:
    """Says what was written, and how training reads it; the exit code."""
    found = [record[job.field] for record in label.labelled(job)]
    bad = label.count_bad(job)
    left_out = f", {bad:,} could not be used ({label.BAD_RECORDS})" if bad else ""
    print(f'{job.folder / label.RECORDS}: {len(found):,} records with "{job.field}"{left_out}')
    told = read_by(job, line)
    if what == "score":
        parts = [f"{x:.4g}" for x in np.quantile(found, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))]
        print(f"least / 5 % / 25 % / median / 75 % / 95 % / most: {' / '.join(parts)}")
        told |= {"score": job.field, "min_score": float(parts[2])}
    else:
        told = {n: x for n, x in told.items() if n not in ("question", "answer")}
        told |= {"caption": job.field}
    print(f"the line of a data set that reads it: {told}")
    most = experiment.data.max_bad_fraction if experiment else Data.max_bad_fraction
    if job.count >= JUDGED and bad > most * job.count:
        print(f"more than {most:.2%} could not be used", file=sys.stderr)
        return UNUSABLE
    return 0


def read_by(job: label.Labelling, line: Dataset) -> dict:
    """The fields of a data set's line that reads what was written, as `line` reads it now."""
    places = {"path": str(job.folder / label.RECORDS), "images": label.picture_root(job.source)}
    places |= dict.fromkeys(("format", "names", "image_ids", "score", "picture"), "")
    moved = dataclasses.replace(line, min_score=0.0, min_side=0, **places)
    return {
        field.name: value
        for field in dataclasses.fields(Dataset)
        if (value := getattr(moved, field.name)) != field.default
    }


def captioned_line(line: Dataset, _) -> Dataset:
    """The pictures alone: whatever the records say of them now."""
    return dataclasses.replace(line, prompt=(), caption="", question="", answer="", image_ids="")


def scored_line(line: Dataset, f) -> Dataset:
    """With --question, asked where a record has a caption and no question of its own."""
    asked = line.kind == "understanding" and f.question
    return dataclasses.replace(
        line, image_ids="", prompt=tuple(f.question) if asked else line.prompt
    )


WAYS = {
    "caption": (caption_settings, captioner, captioned_line),
    "score": (score_settings, judge, scored_line),
}


def _define(into, field: str):
    define = cli.Definer(into)
    define.path(
        "model", None, "A weights directory or hub id; `quickstart` comes with the package."
    )
    define.choice("dtype", None, ("float32", "bfloat16", "int8"), "By default as stored.")
    define.base()
    define.switch("allow_pickle", False, "Read PyTorch's .bin files, tensors only.")
    define.output(
        "out", None, "The folder of the records; the same command goes on there.", required=True
    )
    define.text("field", field, "The name of the new field.")
    define.whole("batch", 0, f"Records that are labelled together; 0: {BATCH}.", lower_bound=0)
    define.whole("limit", 0, "So many records, from the first on; 0: all.", lower_bound=0)
    define.whole("threads", 0, "Threads that open pictures; 0: one a core.", lower_bound=0)
    define.text("coordinator", "", "HOST:PORT of process 0; else JAX_COORDINATOR_ADDRESS.")
    about = "How many processes share the work; else JAX_NUM_PROCESSES."
    define.whole("processes", 0, about, lower_bound=0)
    define.whole("process", -1, "Which one this is, from 0; else JAX_PROCESS_ID.", lower_bound=-1)
    return define


def define_caption(into):
    """The flags of `caption`, those of the data set apart."""
    define = _define(into, "recaption")
    about = f"What is asked; several are asked in turn. By default {REQUEST[0]!r}"
    define.texts("question", [], about)
    define.whole("max_new_tokens", 512, "Longest caption.")
    define.number("temperature", 0.0, "0 takes the likeliest token each time.")
    define.number("top_p", 1.0, "Sample from the likeliest tokens of this mass.")
    define.whole("seed", 0, "Same seed, same captions.")


def define_score(into):
    """The flags of `score`, those of the data set apart."""
    define = _define(into, "score")
    about = "Asked about a caption; several are asked in turn. By default as in training."
    define.texts("question", [], about)
    define.text("scorer", "", "module:function of your own, called with pictures and captions.")


UNREAD = ("continues", "image_ids", "question")
COMMANDS = {
    "caption": command.command(
        "python -m janus_jax.data caption",
        "Captions by a model for the pictures of a data set; the same command goes on where it stopped.",
        "python -m janus_jax.data caption --path=captions.jsonl --images=pictures --model=quickstart "
        "--out=captioned",
        define_caption, (*UNREAD, "prompt", "caption", "answer", "form"),
    ),
    "score": command.command(
        "python -m janus_jax.data score",
        "How much a record's pictures tell of its words, as a model sees it, for min_score; or a "
        "score by a function of yours. The same command goes on where it stopped.",
        "python -m janus_jax.data score --path=captions.jsonl --images=pictures --model=quickstart "
        "--out=scored",
        define_score, UNREAD,
    ),
}  # fmt: skip


def main(argv: list[str]) -> int:
    """argv: the command's name, and the words of the command line after it."""
    return command.start(
        COMMANDS[argv[0]], functools.partial(label_command, what=argv[0]), argv[1:]
    )
