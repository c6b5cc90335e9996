"""Before the first step: all that can be found wrong without drawing a weight or compiling a line,
at once.

A run does it first, before it writes anything; `--dry_run` does nothing else, and tells each part
as it goes.
"""

import dataclasses
import math
import pathlib
import sys
import time

import jax

from janus_jax.config.epochs import uncounted
from janus_jax.config.read import read
from janus_jax.config.schema import ConfigError, Experiment
from janus_jax.data import catalog
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.distributed import initialize, processes
from janus_jax.model import sharding as sh
from janus_jax.training import (
    check_config,
    epochs,
    preflight_data,
    preflight_disk,
    preflight_processor,
    preflight_weights,
    run_dir,
)
from janus_jax.training.changes import Changes
from janus_jax.training.report import Report
from janus_jax.weights.processor_files import special_ids


@dataclasses.dataclass
class Found:
    """What the checks leave for the run.

    Args:
        experiment: the config.
        say: hears each part's lines when it is done.
        report: all that was found.
        sources: the data sets, opened, by name.
        processor: with the tokenizer; None where that cannot be had.
        learned: whether the tokenizer is learned from the data now.
        changes: since the last start of the run.
    """

    experiment: Experiment
    say: object
    report: Report = dataclasses.field(default_factory=Report)
    sources: dict = dataclasses.field(default_factory=dict)
    processor: Processor | None = None
    learned: bool = False
    changes: Changes = dataclasses.field(default_factory=Changes)

    def part(self, name: str, look, *args):
        """Runs `look(*args)`, which returns (value, Report). Keeps and tells the report, and
        returns the value."""
        begin = time.perf_counter()
        value, report = look(*args)
        self.report.add(report)
        for subject, text in report.lines:
            self.say(f"{subject:12}  {text}")
        for text in report.warnings:
            self.say(f"WARNING: {text}")
        self.say(f"{'':12}  ({name}: {time.perf_counter() - begin:.1f} s)")
        return value

    def told(self) -> list[str]:
        """What the log of the run begins with."""
        counted = [text for subject, text in self.report.lines if subject == epochs.SUBJECT]
        changed = [f"changed: {line}" for line in self.changes.lines()]
        return counted + changed + [f"WARNING: {line}" for line in self.report.warnings]


def prepare(config: str, overrides: dict, workdir: pathlib.Path, accept: bool = False) -> Found:
    """Experiment, sources and processor of a run, with the mesh set and its first files written.
    Raises before anything is written or compiled.

    config: the file.
    overrides: dotted path -> text.
    workdir: of the run.
    accept: goes on with what has changed since its last start, without a question.
    """

    def look():
        found = examine(config, overrides, workdir)
        _require_word(found, workdir, accept)
        found.report.require()
        return found

    found = processes.all_or_none(look)
    experiment = found.experiment
    mesh = found.experiment.mesh
    processes.require_equal(must_be_equal(found))
    initialize.require_shared(workdir)
    jax.set_mesh(sh.make_mesh(mesh.data, mesh.fsdp, mesh.tensor))
    processes.all_or_none(lambda: processes.is_lead() and first_files(found, workdir))
    load = lambda: preflight_processor.run_processor(
        experiment, Tokenizer.load(experiment.tokenizer or workdir)
    )
    found.processor = processes.all_or_none(load)
    return found


def rehearse(config, overrides, workdir, devices: int = 0, also=lambda *_: None, accept=False):
    """`--dry_run`: tells what was found. Raises as the run itself would; writes nothing.

    Args:
        config, overrides, workdir: as of `prepare`.
        devices: check for so many, which need not be here; 0: for those that are.
        also: checks more of the experiment with its processor, and raises.
        accept: the run would be told to go on with what has changed since its last start.
    """
    begin = time.perf_counter()
    say = lambda text: processes.is_lead() and print(text, flush=True)
    found = processes.all_or_none(lambda: examine(config, overrides, workdir, devices, say))
    if not accept and found.changes.needs_word and processes.is_lead():
        found.report.config.append(found.changes.unaccepted(workdir))
    processes.all_or_none(found.report.require)
    e, opened = found.experiment, (found.sources, found.processor)
    processes.all_or_none(lambda: processes.is_lead() and also(e, found.processor))
    processes.require_equal(must_be_equal(found))
    seen = lambda: processes.is_lead() and preflight_data.first_as_text(e, *opened)
    say("\n".join(processes.all_or_none(seen) or []))
    here = jax.device_count()
    count = jax.process_count()
    same = f", and the same on all {count} processes" if count > 1 else ""
    where = f" on {devices} devices (here are {here})" if devices not in (0, here) else ""
    well = f"the run can begin{where}: nothing that was looked at is wrong{same}"
    say(f"{well}. Nothing was written; {time.perf_counter() - begin:.1f} s")


def _require_word(found: Found, workdir: pathlib.Path, accept: bool):
    """Enters as a problem that a run has changed, unless the user has said, or says now, that it
    goes on."""
    changes = found.changes
    if accept or not changes.needs_word or not processes.is_lead():  # it alone knows the history
        return
    sound = not (found.report.config or found.report.damaged or found.report.data)
    asks = sound and jax.process_count() == 1 and sys.stdin.isatty() and sys.stdout.isatty()
    if not (asks and changes.agreed()):
        found.report.config.append(changes.unaccepted(workdir))


def must_be_equal(found: Found) -> dict[str, str]:
    """What must be the same on all hosts."""
    data = {}
    for name, source in found.sources.items():
        data[preflight_data.ROOT + name] = source.fingerprint
        if hasattr(source, "held_out"):
            data[f"{preflight_data.ROOT}{name}.holdout"] = source.held_out.fingerprint
    return run_dir.fingerprints(found.experiment) | data


def first_files(found: Found, workdir: pathlib.Path):
    """What the first process writes before training: its lock, config.json, and the tokenizer if it
    is learned."""
    run_dir.hold(workdir)
    run_dir.same_run(found.experiment, workdir, found.changes)
    if found.learned:
        # A resumed run keeps its words, whatever became of its files.
        found.processor.tokenizer.save(workdir)


def examine(
    config: str, overrides: dict, workdir: pathlib.Path, devices: int = 0, say=lambda text: None
) -> Found:
    """All of it, on this process. Raises ConfigError for a config that has not even the right
    form."""
    experiment, wrong = read(config, overrides)
    devices = devices or jax.device_count()
    impossible = check_config.all_problems(experiment, devices)
    found = Found(experiment, say)
    found.report.config += wrong + impossible
    found.sources = found.part(
        "data sets opened", preflight_data.open_sources, experiment, impossible
    )
    if uncounted(experiment) and not (impossible or found.report.data):
        count = epochs.count_steps
        experiment = found.part("epochs counted", count, experiment, found.sources, workdir)
        found.experiment = experiment
        impossible = check_config.all_problems(experiment, devices)
        found.report.config += impossible
    if uncounted(experiment):
        impossible = impossible or found.report.config + found.report.data
    where, found.changes = found.part(
        "work directory", _look_at_work_directory, experiment, workdir, not impossible
    )
    starts = {}
    weights = {}
    if impossible:
        found.part("weights named", _look_without_values, experiment, impossible, devices)
    else:
        found.part("devices", _look_at_devices, experiment, devices)
        starts, weights = found.part(
            "checkpoints, weights and room",
            preflight_weights.look_at_weights,
            experiment,
            workdir,
            where,
            devices,
            found.changes.reopened,
        )
    tokenizer = found.part("tokenizer", look_at_tokenizer, found, workdir, starts, weights)
    found.processor, found.learned = tokenizer
    readable = found.processor if not impossible else None
    all_open = not found.report.data
    found.part(
        "first records",
        preflight_data.look_at_data,
        experiment,
        found.sources,
        readable,
        starts,
        all_open,
        found.changes,
        workdir,
    )
    found.report.config += found.changes.problems(workdir)
    return found


def _look_at_work_directory(experiment: Experiment, workdir: pathlib.Path, possible: bool):
    """((a directory on its disk, what has changed since the last start), what was found)."""
    where, closed = preflight_disk.place(workdir)
    report = Report(config=closed)
    changes = Changes()
    if not closed and processes.is_lead():
        try:
            changes = run_dir.changes_since(experiment, workdir, possible)
        except ConfigError as error:
            report.config.append(str(error))
    for line in changes.lines():
        report.tell("changed", line)
    return (where, changes), report


def _look_without_values(experiment: Experiment, impossible: list[str], devices: int):
    """What can be told while the config's values cannot be."""
    report = Report(config=preflight_weights.file_problems(experiment, experiment.stages))
    asked = [size for size in vars(experiment.mesh).values() if size != -1]
    if min(asked, default=0) > 0 and any(line.startswith("mesh (") for line in impossible):
        more = f"--devices={math.prod(asked)} with --dry_run checks for as many elsewhere"
        report.tell("devices", f"{devices} here; {more}")
    once = "once the config's values are possible"
    report.tell("not yet", f"checkpoints, weights, room and first records: {once}")
    return None, report


def _look_at_devices(experiment: Experiment, devices: int):
    m = experiment.mesh
    device = jax.devices()[0]
    count = jax.process_count()
    shape = "x".join(map(str, sh.mesh_shape(m.data, m.fsdp, m.tensor, devices)))
    text = f"{jax.device_count()} x {device.device_kind}"
    if devices != jax.device_count():
        text = f"{devices} by --devices, here are {text}"
    if count > 1:
        text += f" in {count} processes"
    report = Report()
    report.tell("devices", f"{text}; mesh {shape} ({', '.join(sh.AXES)})")
    return None, report


def look_at_tokenizer(found: Found, workdir: pathlib.Path, starts: dict, weights: dict):
    """((the processor, or None where it cannot be had; whether its tokenizer is learned now), what
    was found)."""
    experiment = found.experiment
    report = Report()
    directory = pathlib.Path(experiment.tokenizer or workdir)
    cut = [] if experiment.tokenizer else preflight_processor.cut_tokenizer(workdir)
    report.warnings += cut
    learned = False
    try:
        if (directory / "tokenizer.json").is_file() and not cut:
            named = str(directory / "tokenizer.json")
            tokenizer = Tokenizer.load(directory)
        elif experiment.tokenizer or found.report.data or not found.sources:
            return (None, False), report  # it is told already what is missing
        else:
            named = "the tokenizer learned from the data"
            learned = True
            vocabulary = experiment.model.transformer.vocabulary
            sources = found.sources.values()
            tokenizer = catalog.learn_tokenizer(list(sources), experiment.template, vocabulary)
        processor = preflight_processor.run_processor(experiment, tokenizer)
    except ValueError as error:
        report.config.append(f"tokenizer: {error}")
        return (None, False), report
    ids = ", ".join(f"{name} {i}" for name, i in special_ids(tokenizer).items())
    report.tell("tokenizer", f"{named}: {len(tokenizer):,} ids; {ids}")
    report.config += preflight_weights.token_problems(experiment, tokenizer, named, starts, weights)
    report.warnings += preflight_processor.unlike_weights(experiment, processor, weights)
    return (processor, learned), report
