"""What is in data sets, and what is wrong with them: `python -m janus_jax.data check
--config=configs/stage1.py`, or `--kind=generation --path=captions.jsonl --images=pictures`.

Reads records as training would and tells their number, sizes and lengths, records and pictures that
are there twice, and every one that cannot be used, by file and cause. For a config also what its
stages will make of them. --out: a directory for report.json, bad_records.jsonl (the unusable
records) and samples.png. Exit code 3 when anything is unusable.
"""

import json
import os
import pathlib
import sys
import types

from janus_jax.common import cli, outputs
from janus_jax.common import progress as progress_
from janus_jax.config.schema import Rows, Template
from janus_jax.data import catalog
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.processor import Processor
from janus_jax.data.sources import SourceError
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.data.tools import command, forecast, held_out, report, unread
from janus_jax.data.tools.sheet import Band, sheets
from janus_jax.data.tools.survey import Survey, survey
from janus_jax.data.tools.view import visible
from janus_jax.model.presets import janus_1_3b

VOCABULARY = 16384  # of a tokenizer learned from the data where none is named
# Without a config: rows of the released models' context, and as many pictures as fit.
PLAIN = types.SimpleNamespace(
    supervise="all",
    first_sentence=0.0,
    form=lambda line: line.form or "chat",
    rows=Rows(count=1, length=4096, understanding_images=7, generation_images=6),
)


def check(lines: dict, experiment, stages: list[str], options, say=print) -> dict:
    """The report on some data sets as plain data, told to `say`. Raises CommandError, and after
    Ctrl-C KeyboardInterrupt, once what has been read is reported.

    lines: the data sets by name.
    experiment: the config, or None.
    stages: those of the config that are asked for.
    options: tokenizer (a directory, or empty), records (0: all), threads, out (a directory, or
        empty).
    say: takes a text.
    """
    if options.out:
        command.writable(options.out)  # before an hour of reading, not after it
    sources, closed = open_all(lines, experiment)
    found = {
        name: Survey(name, lines[name].kind, lines[name].path, closed=why)
        for name, why in closed.items()
    }
    processor, note = processor_of(experiment, sources, options.tokenizer)
    if sources:
        say(note)
    bands = []
    out = {"tokenizer": note, "datasets": {}, "stages": {}}
    looked, sources = held_out.with_held_out(lines, sources)
    for name, source in sources.items():
        line = looked[name]
        encoders = encoders_of(line, experiment, stages, processor)
        progress = progress_.Progress(name, min(options.records or len(source), len(source)))
        found[name] = survey(
            name, line, source, encoders, options.records, options.threads, progress
        )
        progress.close()
        if found[name].good:
            bands.append(Band.spread(name, line, source, encoders, found[name].good))
        if found[name].stopped:
            break
    stopped = any(survey.stopped for survey in found.values())
    for name, line in looked.items():
        if name not in found:
            continue
        length = next(iter(stages_of(line, experiment, stages).values())).rows.length
        out["datasets"][name] = report.summary(found[name], sources.get(name), length)
        say("\n" + "\n".join(report.summary_lines(name, out["datasets"][name], found[name].bad)))
    if not (stopped or options.records):
        stopped = _tell_unread(sources, out, say)
    apart = held_out.numbers(experiment, found, sources) if experiment else {}
    if experiment:
        out["leaks"] = held_out.leaks(experiment, found, sources, apart)
        for text in out["leaks"]:
            say(f"\nWARNING: {text}")
    trained = held_out.trained(found, apart)
    for name in stages if not stopped else ():
        out["stages"][name] = _forecast(lines, trained, name, experiment, say)
    if options.out:
        _save(pathlib.Path(options.out), out, found, bands, say)
    if stopped:
        raise KeyboardInterrupt
    return out


def open_all(lines: dict, experiment) -> tuple[dict, dict[str, str]]:
    """(the sources that can be opened, why the others cannot), both by name."""
    sources = {}
    closed = {}
    for name, line in lines.items():
        try:
            sources[name] = command.open_line(line, experiment)
        except (SourceError, ImportError) as error:  # a format's package is not installed
            closed[name] = str(error)
    return sources, closed


def encoders_of(line, experiment, stages: list[str], processor: Processor) -> dict:
    """What makes examples of a data set's records, by stage. No condition dropout: it would hide
    prompts."""
    model = experiment.model if experiment else janus_1_3b()
    return {
        name: ExampleEncoder(
            processor,
            model,
            stage.rows,
            stage.supervise,
            first=stage.first_sentence,
            form=stage.form(line),
        )
        for name, stage in stages_of(line, experiment, stages).items()
    }


def unusable(out: dict) -> tuple[int, int]:
    """How many records of a report cannot be used, and how many data sets cannot be opened."""
    told = out["datasets"].values()
    return sum(s["unusable"] for s in told), sum(bool(s["closed"]) for s in told)


def _draws(line, stage, name: str) -> bool:
    """Whether stage `name` draws from a data set."""
    return (
        vars(stage.ratio)[line.kind] > 0
        and line.weight > 0
        and (not line.stages or name in line.stages)
    )


def stages_of(line, experiment, stages: list[str]) -> dict:
    """Those of `stages` that draw from a data set, by name, or what stands for one."""
    return {s: experiment.stages[s] for s in stages if _draws(line, experiment.stages[s], s)} or {
        "": PLAIN
    }


def processor_of(experiment, opened: dict, directory: str) -> tuple[Processor, str]:
    template = experiment.template if experiment else Template()
    model = experiment.model if experiment else janus_1_3b()
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    named = directory or (experiment.tokenizer if experiment else "")
    if named and (directory or (pathlib.Path(named) / "tokenizer.json").is_file()):
        tokenizer = Tokenizer.load(named)
        note = f"lengths in tokens of {named}"
    else:  # a later stage's tokenizer is often not there yet when its data is looked at
        vocabulary = model.transformer.vocabulary if experiment else VOCABULARY
        tokenizer = catalog.learn_tokenizer(list(opened.values()), template, vocabulary)
        why = f"there is no {named}/tokenizer.json, so " if named else ""
        note = (
            f"{why}lengths are in tokens of a byte-level BPE of {len(tokenizer):,} ids learned "
            f"from these data; "
            "--tokenizer=DIR names another"
        )
    return Processor(tokenizer, template, *counts), note


def _forecast(lines: dict, found: dict, name: str, experiment, say) -> list:
    stage = experiment.stages[name]
    others = [
        n for n, d in experiment.data.datasets.items() if _draws(d, stage, name) and n not in lines
    ]
    if others:
        say(
            f"\n{name}: no forecast, since it draws from {', '.join(others)} as well: leave out "
            f"--dataset"
        )
        return []
    drawn = {n: line for n, line in lines.items() if _draws(line, stage, name) and found[n].good}
    left = [n for n, line in lines.items() if _draws(line, stage, name) and not found[n].good]
    if left:
        say(f"\n{name}: without {', '.join(left)}, of which nothing can be used")
    try:
        phases = forecast.forecast(name, drawn, found, stage, experiment.seed)
    except SourceError as error:
        say(f"\n{name}: no forecast: {error}")
        return []
    say("\n" + "\n".join(forecast.forecast_lines(name, phases, stage.rows)))
    return phases


def _tell_unread(sources: dict, out: dict, say) -> bool:
    """Tells the files that no record reads, and enters them in the report. Returns whether Ctrl-C
    has ended the look."""
    try:
        left = unread.unread(sources.values())
    except KeyboardInterrupt:
        return True
    except SourceError as error:
        say(f"\nwhich files no record reads is not known: {error}")
        return False
    out["not_read"] = {root: names[: report.KEPT] for root, names in left.items()}
    if left:
        say("\n" + "\n".join(unread.lines(left)))
    return False


def _save(directory: pathlib.Path, out: dict, found: dict, bands: list[Band], say):
    bad = [{"dataset": name} | line for name, s in found.items() for line in s.bad]
    made = {
        "report.json": json.dumps(out, indent=1, allow_nan=False) + "\n",
        "bad_records.jsonl": "".join(json.dumps(line) + "\n" for line in bad),
    }
    made |= sheets(bands, "samples.png")
    kept = [outputs.replace(directory / name, content) for name, content in made.items()]
    say("\n" + "\n".join([f"{', '.join(made)} in {directory}", *filter(None, kept)]))


def define_view(into):
    """The flags that `show` has too."""
    define = cli.Definer(into)
    define.texts("stage", [], "Of a config: these stages only.")
    define.path("tokenizer", None, "A directory with tokenizer.json; else the config's.")


def define_flags(into):
    define_view(into)
    define = cli.Definer(into)
    about = "How many to read of each data set, drawn at random; 0: all."
    define.whole("records", 0, about, 0)
    define.whole("threads", min(os.cpu_count() or 1, 16), "Threads that read and decode.", 1)
    about = "A directory for the report, the list of unusable records and the samples."
    define.output("out", None, about)


def chosen_stages(f, overrides: dict[str, str]):
    """(data sets by name, experiment or None, names of stages) that the parsed flags `f` name.
    Raises CommandError, ConfigError."""
    lines, experiment = command.chosen(f, overrides)
    packs = lambda stage: stage.rows is not None  # others read the pictures alone
    known = [n for n, stage in experiment.stages.items() if packs(stage)] if experiment else []
    for name in f.stage:
        if name not in known:
            has = ", ".join(known) or "none, it is not given"
            raise command.CommandError(f"--stage={name}: the config has {has}")
    stages = f.stage or known
    if f.stage:
        drawn = lambda line: any(_draws(line, experiment.stages[s], s) for s in stages)
        lines = {name: line for name, line in lines.items() if drawn(line)}
    return lines, experiment, stages


def _run(f, overrides: dict[str, str]) -> int:
    """The command; returns its exit code."""
    lines, experiment, stages = chosen_stages(f, overrides)
    say = lambda text: print(visible(text))  # names of files and fields are others' words
    records, closed = unusable(check(lines, experiment, stages, f, say))
    bad = []
    if records:
        bad.append(f"unusable records: {records:,}")
    if closed:
        bad.append(f"data sets that cannot be opened: {closed}")
    print("; ".join(bad) or "everything can be used")
    return command.UNUSABLE if bad else 0


COMMAND = command.command(
    "python -m janus_jax.data check",
    "What is in data sets, and what is wrong with them. Ends with 3 when anything is unusable.",
    "python -m janus_jax.data check --kind=generation --path=captions.jsonl --images=pictures",
    define_flags,
)


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data check`."""
    return command.start(COMMAND, _run, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
