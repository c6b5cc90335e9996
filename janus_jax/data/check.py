"""What is in data sets, and what is wrong with them: `python -m janus_jax.data.check --config=configs/stage1.py`, or
`--kind=generation --path=captions.jsonl --images=pictures`.

Reads records as training would and tells their number, sizes and lengths, records and pictures that are there twice,
and every one that cannot be used, by file and cause. For a config also what its stages will make of them. --out: a
directory for report.json, rotten.jsonl (the unusable records) and samples.png. Exit code 3 when anything is unusable.
"""

import json
import os
import pathlib
import types

from janus_jax.data import catalog, command, forecast, report, workers
from janus_jax.data.lanes import Encoder
from janus_jax.data.pipeline import Rows
from janus_jax.data.processor import Processor, Template
from janus_jax.data.sheet import sheet
from janus_jax.data.sources import SourceError
from janus_jax.data.survey import Survey, survey
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model.config import janus_1_3b

VOCABULARY = 16384  # of a tokenizer learned from the data where none is named
# Without a config: rows of the released models' context, and as many pictures as fit.
PLAIN = types.SimpleNamespace(
    supervise="all", first_sentence=0.0, rows=Rows(count=1, length=4096, pictures=7, images=6)
)


def check(lines: dict, experiment, stages: list[str], options, say=print) -> dict:
    """The report on the data sets `lines` as plain data, told to `say`.

    experiment: or None; stages: of it; options: tokenizer (a directory, or empty), records (0: all), threads, out (a
    directory, or empty). Raises CommandError.
    """
    if options.out:
        command.writable(options.out)  # before an hour of reading, not after it
    opened, closed = {}, {}
    for name, line in lines.items():
        try:
            opened[name] = command.opened(line, experiment)
        except (SourceError, ImportError) as error:  # ImportError: a format's package is not installed
            closed[name] = Survey(name, line.kind, line.path, closed=str(error))
    processor, note = _processor(experiment, opened, options.tokenizer)
    if opened:
        say(note)
    found, parts, out = dict(closed), [], {"tokenizer": note, "datasets": {}, "stages": {}}
    for name, source in opened.items():
        model = experiment.model if experiment else janus_1_3b()
        encoders = {
            key: Encoder(processor, model, stage.rows, stage.supervise, 0.0, stage.first_sentence)
            for key, stage in _stages_of(lines[name], experiment, stages).items()
        }
        total = min(options.records or len(source), len(source))
        progress = workers.Progress(name, total)
        found[name] = survey(name, lines[name], source, encoders, options.records, options.threads, progress)
        progress.close()
        parts.append(
            (
                f"{name}: {lines[name].kind}, {lines[name].path}",
                found[name],
                source,
                next(iter(encoders.values())),
            )
        )
    for name in lines:
        length = next(iter(_stages_of(lines[name], experiment, stages).values())).rows.length
        out["datasets"][name] = report.summary(found[name], opened.get(name), length)
        say("\n" + "\n".join(report.lines(name, out["datasets"][name], found[name].bad)))
    for name in stages:
        out["stages"][name] = _forecast(lines, found, name, experiment, say)
    if options.out:
        _save(pathlib.Path(options.out), out, found, parts, say)
    return out


def unusable(out: dict) -> tuple[int, int]:
    """How many records of a report cannot be used, and how many data sets cannot be opened."""
    told = out["datasets"].values()
    return sum(s["unusable"] for s in told), sum(bool(s["closed"]) for s in told)


def _draws(line, stage, name: str) -> bool:
    """Whether stage `name` draws from a data set."""
    return vars(stage.ratio)[line.kind] > 0 and line.weight > 0 and (not line.stages or name in line.stages)


def _stages_of(line, experiment, stages: list[str]) -> dict:
    """Those of `stages` that draw from a data set, by name, or what stands for one."""
    return {s: experiment.stages[s] for s in stages if _draws(line, experiment.stages[s], s)} or {"": PLAIN}


def _processor(experiment, opened: dict, directory: str) -> tuple[Processor, str]:
    template = experiment.template if experiment else Template()
    model = experiment.model if experiment else janus_1_3b()
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    named = directory or (experiment.tokenizer if experiment else "")
    if named and (directory or (pathlib.Path(named) / "tokenizer.json").is_file()):
        tokenizer, note = Tokenizer.load(named), f"lengths in tokens of {named}"
    else:  # a later stage's tokenizer is often not there yet when its data is looked at
        vocabulary = model.transformer.vocabulary if experiment else VOCABULARY
        tokenizer = catalog.learn_tokenizer(list(opened.values()), template, vocabulary)
        why = f"there is no {named}/tokenizer.json, so " if named else ""
        note = (
            f"{why}lengths are in tokens of a byte-level BPE of {len(tokenizer):,} ids learned from these data; "
            "--tokenizer=DIR names another"
        )
    return Processor(tokenizer, template, *counts), note


def _forecast(lines: dict, found: dict, name: str, experiment, say) -> list:
    stage = experiment.stages[name]
    others = [n for n, d in experiment.data.datasets.items() if _draws(d, stage, name) and n not in lines]
    if others:
        say(f"\n{name}: no forecast, since it draws from {', '.join(others)} as well: leave out --dataset")
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
    say("\n" + "\n".join(forecast.lines(name, phases, stage.rows)))
    return phases


def _save(directory: pathlib.Path, out: dict, found: dict, parts: list, say):
    (directory / "report.json").write_text(json.dumps(out, indent=1, allow_nan=False) + "\n")
    bad = [{"dataset": name} | line for name, s in found.items() for line in s.bad]
    (directory / "rotten.jsonl").write_text("".join(json.dumps(line) + "\n" for line in bad))
    names = ["report.json", "rotten.jsonl"]
    parts = [part for part in parts if part[1].good]
    if parts:
        sheet(parts).save(directory / "samples.png")
        names.append("samples.png")
    say(f"\n{', '.join(names)} in {directory}")


def define(into):
    from absl import flags

    flags.DEFINE_multi_string(
        "stage", [], "Of a config: these stages only; may be repeated.", flag_values=into
    )
    flags.DEFINE_string(
        "tokenizer", "", "A directory with tokenizer.json; else the config's.", flag_values=into
    )
    flags.DEFINE_integer("records", 0, "Of each data set, drawn at random; 0: all.", 0, flag_values=into)
    flags.DEFINE_integer(
        "threads", min(os.cpu_count() or 1, 16), "That read and decode.", 1, flag_values=into
    )
    flags.DEFINE_string("out", "", "A directory for the report, the list and the samples.", flag_values=into)


def main(f, overrides: dict[str, str]) -> int:
    lines, experiment = command.chosen(f, overrides)
    known = list(experiment.stages) if experiment else []
    wrong = [name for name in f.stage if name not in known]
    if wrong:
        raise command.CommandError(
            f"--stage={wrong[0]}: the config has {', '.join(known) or 'none, it is not given'}"
        )
    stages = f.stage or known
    if f.stage:
        lines = {
            name: line
            for name, line in lines.items()
            if any(_draws(line, experiment.stages[s], s) for s in stages)
        }
    out = check(lines, experiment, stages, f)
    records, closed = unusable(out)
    bad = [f"unusable records: {records:,}"] * bool(records) + [
        f"data sets that cannot be opened: {closed}"
    ] * bool(closed)
    print("; ".join(bad) or "everything can be used")
    return command.UNUSABLE if bad else 0


if __name__ == "__main__":
    command.start(main, define)
