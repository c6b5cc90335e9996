"""A config's data sets opened, and the first record of each read as training would: images decode,
text becomes tokens, both fit a row."""

import dataclasses
import pathlib

from janus_jax.checkpoint import checksums
from janus_jax.checkpoint.inspect import stage_directory
from janus_jax.common.text import differences, short
from janus_jax.config.held_out import holdout_of
from janus_jax.config.schema import Experiment
from janus_jax.data import catalog
from janus_jax.data.holdout import part_of
from janus_jax.data.mixture import Mixture
from janus_jax.data.processor import Processor
from janus_jax.data.resume import differing, fingerprint, restore_position
from janus_jax.data.row_stream import BAD, IN_A_ROW
from janus_jax.data.sources import Source, SourceError
from janus_jax.data.tools import view
from janus_jax.distributed import processes
from janus_jax.training import stage_mixture
from janus_jax.training.changes import Changes
from janus_jax.training.preflight_effects import settings_without_effect
from janus_jax.training.report import Report
from janus_jax.training.stage_plan import StagePlan

ROOT = "data.datasets."
WHOLE = 1 << 20  # pixels: pictures that are cut into tiles are decoded as they are
SHOWN = 1200  # characters of a record in a dry run
BATCH_OFF = 0.1  # of batch_size, by which the examples in a step's rows may differ unsaid


def open_sources(experiment: Experiment, wrong: list[str]) -> tuple[dict, Report]:
    """(the data sets that some stage draws, opened, by name; what keeps others from being opened).

    wrong: what is known to be wrong with the config; a line that it names is left out.
    """
    side = max(experiment.model.generation_encoder.image_size, 1)
    tower = experiment.model.understanding_encoder
    resized = max(tower.image_size, 1) if tower.tiles == 1 else WHOLE
    sources = {}
    report = Report()
    for name, line in needed(experiment).items():
        if any(problem.startswith(f"{ROOT}{name}.") for problem in wrong):
            continue
        try:
            # Of several sizes to draw a picture's own is known when it is read: it comes whole.
            whole = line.kind == "generation" and experiment.model.generation_encoder.sizes
            pixels = 0 if whole else resized
            opened = catalog.open_datasets({name: line}, side, experiment.seed, resized=pixels)
            sources |= opened
        except SourceError as error:
            report.data.append(str(error))
    return sources, report


def needed(experiment: Experiment) -> dict:
    """The lines of data.datasets whose kind some stage asks for."""
    kinds = {
        kind
        for stage in experiment.stages.values()
        for kind, share in vars(stage.ratio).items()
        if share > 0
    }
    lines = experiment.data.datasets.items()
    return {name: d for name, d in lines if d.kind in kinds and d.weight > 0}


def look_at_data(
    experiment: Experiment,
    sources: dict,
    processor: Processor | None,
    starts: dict,
    all_open: bool,
    changes: Changes,
    workdir: pathlib.Path,
):
    """(None, what the first record of each data set is, and whether a stage's data is what its
    checkpoint was trained on).

    experiment: the config.
    sources: the data sets that could be opened, by name.
    processor: None where records cannot be read yet.
    starts: by stage, where each goes on.
    all_open: whether `sources` are all that the stages draw; else positions are not looked at.
    changes: since the last start; gets those of the data.
    workdir: of the run.
    """
    report = Report()
    told = {}
    if processor is not None:
        for name, source in sources.items():
            try:
                told[name], warnings = _first(experiment, name, source, processor)
                report.warnings += warnings
                if held_out := getattr(source, "held_out", None):
                    of = f"{ROOT}{name}.holdout"
                    report.warnings += _first(experiment, name, held_out, processor, of)[1]
            except SourceError as error:
                report.data.append(str(error))
        if not report.data and all_open:
            for name in experiment.stages:
                if not starts[name].done:
                    plan = StagePlan.of(experiment, name)
                    position = starts[name].position
                    report.add(_look_at_position(plan, sources, processor, position, changes))
                    if position is None and starts[name].step is not None:
                        saved = stage_directory(workdir, name) / str(starts[name].step)
                        _look_at_contents(plan, sources, saved, changes)
    for name, source in sources.items():
        line = experiment.data.datasets[name]
        first = told.get(name, "?")
        count = f"{len(source):,} records of {line.path}{_held_out(experiment, name, source)}"
        report.tell("data", f"{name}: {line.kind}, {count}; the first: {first}")
    if processor is not None:
        report.add(settings_without_effect(experiment))
    return None, report


def first_as_text(experiment: Experiment, sources: dict, processor: Processor) -> list[str]:
    """The first usable record of each data set that is packed into rows: its tokens, as the first
    stage that draws it sees them. See data/tools/view.py; for `--dry_run`.

    experiment: the config.
    sources: the data sets, opened, by name.
    processor: the tokenizer and template.
    """
    out = []
    for name, source in sources.items():
        line = experiment.data.datasets[name]
        drawn = [s for s in experiment.stages if name in experiment.draws(s)]
        for stage in [s for s in drawn if experiment.stages[s].rows][:1]:
            plan = StagePlan.of(experiment, stage)
            encoder = dataclasses.replace(
                stage_mixture.encoder(plan, processor), dropout=0.0, form=plan.stage.form(line)
            )
            for shown in view.look(line, source, encoder, 1)[0][:1]:
                text = short(view.as_text(shown.pieces), SHOWN)
                out.append(f"\n{name}, {shown.where}, as {stage} sees it: {shown.told}\n{text}")
    same = "the --config and --data flags of this command"
    more = f"more of them, with pictures: janus-jax data show --out=shown.html, with {same}"
    return [*out, "", f"(«what is predicted»; {more})"] if out else []


def _held_out(experiment: Experiment, name: str, source: Source) -> str:
    """How many records of a data set are held out, in words; empty for none."""
    if not holdout_of(experiment, name):
        return ""
    try:
        held = part_of(experiment, name, source, held_out=True)
    except SourceError:  # it is told where the stage is looked at
        return ""
    beside = getattr(source, "held_out", None) is held
    where = f" beside them, {experiment.data.datasets[name].holdout}," if beside else " of these"
    return f" ({len(held):,}{where} held out)"


def _look_at_position(
    plan: StagePlan, sources: dict, processor: Processor, position, changes: Changes
) -> Report:
    """What the stage draws, with image_ids and without, how many examples its rows hold, and, where
    it goes on from a position, whether the data is still the one that it was trained on. All its
    data sets must be open."""
    report = Report()
    try:
        mixture = stage_mixture.mixture_of(plan, stage_mixture.entries_of(plan, sources))
        if plan.stage.rows is not None and not hasattr(plan.task, "ROLLS"):
            report.add(_look_at_batch_size(plan, mixture, processor))
        if position is not None:
            now = fingerprint(mixture, stage_mixture.encoder(plan, processor))
            said = restore_position(position, now, mixture, accept=True)[1]
            report.warnings += [f"stages.{plan.name}, its data: {line}" for line in said]
            different = differing(position["fingerprint"], now)
            # Another tokenizer is refused, see preflight_weights.token_problems.
            different = [line for line in different if not line.startswith("tokenizer: ")]
            changes.add_data(plan.name, now, different)
    except SourceError as error:
        report.data.append(f"stages.{plan.name}: {error}")
    return report


def _look_at_contents(plan: StagePlan, sources: dict, saved: pathlib.Path, changes: Changes):
    """Whether a stage whose batches are a function of the step still reads what it read when the
    checkpoint `saved` was made, as far as that says it."""
    manifest = checksums.read_manifest(saved) if processes.is_lead() else {}
    entries = stage_mixture.entries_of(plan, sources)
    now = stage_mixture.contents(stage_mixture.mixture_of(plan, entries))
    changes.add_data(plan.name, now, differences(manifest.get("data", now), now))


def _look_at_batch_size(plan: StagePlan, mixture: Mixture, processor: Processor) -> Report:
    """Whether the stage's rows hold about `batch_size` examples of these data."""
    report = Report()
    asked = plan.stage.batch_size
    rows = plan.stage.rows
    path = f"stages.{plan.name}"
    for first, count in stage_mixture.examples_a_step(plan, mixture, processor).items():
        held = f"{rows.count} rows of {rows.length} hold about {count:.0f} examples"
        since = f" from step {first:,} on" if first else ""
        told = f"{plan.name}: {held} a step{since}, batch_size says {asked}"
        shares = mixture.asked(first)
        left = sum(
            shares[e.name] for e in mixture.entries if e.kind in plan.keeps and e.name in shares
        )
        if left < 1 - 1e-6:
            told += f"; keep leaves about {count * left:.0f} of them, {' and '.join(plan.keeps)}"
        report.tell("batch", told)
        if abs(count / asked - 1) > BATCH_OFF:
            fitting = max(1, round(rows.count * asked / count))
            more = f"for {asked} examples set {path}.rows.count={fitting}, "
            more = more if fitting != rows.count else ""
            report.warnings.append(
                f"{path}.batch_size is {asked}, but its {held} of these data{since}, and the rows "
                f"are what is trained on; {more}to say what is: {path}.batch_size={count:.0f}"
            )
    return report


def _first(
    experiment: Experiment, name: str, source: Source, processor: Processor, field: str = ""
):
    """(what the first usable record of a data set is, warnings where it is not the very first).
    field: that names the records; empty: the data set's own."""
    field = field or ROOT + name
    line = experiment.data.datasets[name]
    told = {}
    warnings = []
    for stage in experiment.stages:
        if name not in experiment.draws(stage):
            continue
        plan = StagePlan.of(experiment, stage)
        read = plan.task.read_first(plan, processor)
        tried = min(IN_A_ROW, len(source))
        first = None
        for i in range(tried):
            try:
                text = read(line, source, i)
                break
            except BAD as error:
                first = first or error
        else:
            raise SourceError(
                f"{field}: {stage} can use none of its first {tried} records; the first of "
                f"them: {first}"
            )
        told.setdefault(text, []).append(stage)
        if first:
            warnings.append(f"{field}: {stage} cannot use its first {i} records, such as: {first}")
    text = "; ".join(f"{text} ({', '.join(stages)})" for text, stages in told.items())
    return text, warnings
