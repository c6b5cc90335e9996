"""Before the first step: all that can be found wrong without drawing a weight or compiling a line, at once.

A run does it first, before it writes anything; `--dry_run` does nothing else, tells what it found, and waits for no
data set longer than a few seconds.
"""

import dataclasses
import math
import pathlib
import time
from contextlib import contextmanager

import jax

from janus_jax import hosts, identity, leaving, meet, opening, stored
from janus_jax import sharding as sh
from janus_jax.checks import file_problems, value_problems
from janus_jax.convert.sidecars import special_ids
from janus_jax.data import catalog
from janus_jax.data.processor import Processor
from janus_jax.data.sources import SourceError
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.experiment import ConfigError, Experiment, listed, read
from janus_jax.steps import CheckpointsDamaged

LIMIT = 8.0  # seconds of a dry run, of which data sets may take half to open; what takes longer is left out


@dataclasses.dataclass
class Found:
    """lines: (subject, what it is); config, data, damaged: what is wrong, by the exit code that it means; late: data
    sets that were not waited for; seconds: of each part; named: where the tokenizer is from;
    learned: whether it is learned from the data now."""

    experiment: Experiment
    sources: dict = dataclasses.field(default_factory=dict)
    processor: Processor | None = None
    named: str = "the tokenizer learned from the data"
    learned: bool = False
    lines: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    config: list[str] = dataclasses.field(default_factory=list)
    data: list[str] = dataclasses.field(default_factory=list)
    damaged: list[str] = dataclasses.field(default_factory=list)
    late: list[str] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def require(self):
        """Raises ConfigError, CheckpointsDamaged where no checkpoint is sound, or SourceError where only the data is
        at fault; with all that is wrong."""
        if self.config:
            raise ConfigError(listed(self.config + self.damaged + self.data))
        if self.damaged:
            raise CheckpointsDamaged("\n".join(self.damaged + self.data))
        if self.data:
            raise SourceError("\n".join(self.data))

    def tell(self, subject: str, *lines: str):
        self.lines += [(subject, line) for line in lines]

    @contextmanager
    def timed(self, part: str):
        begin = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0) + time.perf_counter() - begin


def prepare(config: str, overrides: dict, workdir: pathlib.Path) -> Found:
    """Experiment, sources and processor of a run, with the mesh set and its first files written. Raises before
    anything is written or compiled."""

    def look():
        found = examine(config, overrides, workdir)
        found.require()
        return found

    found = hosts.together(look)
    experiment, mesh = found.experiment, found.experiment.mesh
    hosts.same(facts(found))
    meet.require_shared(workdir)
    jax.set_mesh(sh.make_mesh(mesh.data, mesh.fsdp, mesh.tensor))
    hosts.together(lambda: hosts.first() and first_files(found, workdir))
    load = lambda: opening.processor(experiment, Tokenizer.load(experiment.tokenizer or workdir))
    found.processor = hosts.together(load)
    return found


def rehearse(config: str, overrides: dict, workdir: pathlib.Path, devices: int = 0):
    """`--dry_run`: tells what was found. Raises as the run itself would; writes nothing.

    devices: check for so many, which need not be here; 0: for those that are.
    """
    begin = time.perf_counter()
    found = hosts.together(lambda: examine(config, overrides, workdir, devices, quick=True))
    if hosts.first():
        print("\n".join(report(found)), flush=True)
    hosts.together(found.require)
    late = {opening.ROOT + name for names in hosts.gather(found.late) for name in names}
    hosts.same({name: fact for name, fact in facts(found).items() if name not in late})
    if hosts.first():
        here, count = jax.device_count(), jax.process_count()
        same = f", and the same on all {count} processes" * (count > 1)
        where = f" on {devices} devices (here are {here})" if devices not in (0, here) else ""
        seconds = time.perf_counter() - begin
        well = f"the run can begin{where}: nothing that was looked at is wrong{same}"
        print(f"{well}. Nothing was written; {seconds:.1f} s", flush=True)


def leave(code: int):
    """Ends the process at once: a data set that is still being opened would hold it up."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
    leaving.leave(code)


def facts(found: Found) -> dict[str, str]:
    """What must be the same on all hosts."""
    data = {opening.ROOT + name: source.fingerprint for name, source in found.sources.items()}
    return identity.fingerprints(found.experiment) | data


def first_files(found: Found, workdir: pathlib.Path):
    """What the first process writes before training: its lock, config.json, and the tokenizer if it is learned."""
    identity.hold(workdir)
    identity.same_run(found.experiment, workdir)
    if found.learned:
        found.processor.tokenizer.save(workdir)  # a resumed run keeps its words, whatever became of its files


def examine(
    config: str, overrides: dict, workdir: pathlib.Path, devices: int = 0, quick: bool = False
) -> Found:
    """All of it, on this process. Raises ConfigError for a config that has not even the right form.

    quick: data sets that take long are not waited for.
    """
    begin = time.perf_counter()
    left = lambda: max(1.0, begin + LIMIT - time.perf_counter()) if quick else None
    experiment, wrong = read(config, overrides)
    found, devices = Found(experiment), devices or jax.device_count()
    impossible = value_problems(experiment, devices)
    found.config += wrong + impossible
    found.seconds["config"] = time.perf_counter() - begin
    with found.timed("data sets"):
        found.sources, problems, found.late = opening.open_sources(
            experiment, impossible, LIMIT / 2 if quick else None
        )
        found.data += problems
    with found.timed("work directory"):
        where, closed = stored.place(workdir)
        found.config += closed or (identity.problems(experiment, workdir) if hosts.first() else [])
    starts, weights = {}, {}
    if impossible:
        asked = [size for size in vars(experiment.mesh).values() if size != -1]
        if quick and min(asked, default=0) > 0 and any(line.startswith("mesh (") for line in impossible):
            found.tell(
                "devices", f"{devices} here; --devices={math.prod(asked)} checks for as many elsewhere"
            )
        found.config += file_problems(experiment, experiment.stages)
        found.tell(
            "not yet", "checkpoints, weights, room and first records: once the config's values are possible"
        )
    else:
        _look_at_devices(found, devices)
        starts, weights = _look_at_stored(found, workdir, where, devices, left)
    with found.timed("tokenizer"):
        _look_at_tokenizer(found, workdir, starts, weights, left())
    told = {}
    if not impossible and found.processor:
        with found.timed("first records"):
            told = _look_at_records(found, starts, left())
    for name, source in found.sources.items():
        line, first = experiment.data.datasets[name], told.get(name, "?")
        found.tell("data", f"{name}: {line.kind}, {len(source):,} records of {line.path}; the first: {first}")
    for name in found.late:
        found.warnings.append(
            f"{opening.ROOT}{name}: NOT LOOKED AT, it takes longer than a dry run does; the run waits for it, and "
            f"python -m janus_jax.data.check --config={config} --dataset={name} reads all of it"
        )
    return found


def _look_at_devices(found: Found, devices: int):
    m, device = found.experiment.mesh, jax.devices()[0]
    shape = "x".join(map(str, sh.mesh_shape(m.data, m.fsdp, m.tensor, devices)))
    here, processes = f"{jax.device_count()} x {device.device_kind}", jax.process_count()
    given = f"{devices} by --devices, here are {here}" if devices != jax.device_count() else here
    found.tell(
        "devices",
        f"{given}{f' in {processes} processes' * (processes > 1)}; mesh {shape} ({', '.join(sh.AXES)})",
    )


def _look_at_stored(
    found: Found, workdir: pathlib.Path, where: pathlib.Path, devices: int, left
) -> tuple[dict, dict]:
    """(stage -> where it begins, stage -> the sources that it begins with). Checkpoints are the first process's
    business, which tells for all: others may not see yet what is there."""
    experiment, starts = found.experiment, {}
    with found.timed("shapes"):
        states, params = stored.states(experiment, devices)
    told = found if hosts.first() else Found(experiment)
    with found.timed("checkpoints"):
        for name, state in states.items():
            starts[name] = stored.start(workdir, name, state, told.config, told.damaged, told.warnings)
    begin = [name for name in experiment.stages if not starts[name].begun]

    def look() -> tuple[list[str], dict]:
        problems = file_problems(experiment, begin)
        return problems, {n: stored.init_sources(experiment, n, workdir, params, problems) for n in begin}

    weights = _look_at_weights(found, look, left())
    numbers, llm = sum(x.size for x in jax.tree.leaves(params)), experiment.model.transformer
    layers = f"{llm.layers} layers of width {llm.width}, {llm.vocabulary:,} text ids"
    found.tell("model", f"{numbers:,} parameters, {layers}; computes in {experiment.model.dtype}")
    for name in states:
        found.tell(name, stored.stage_line(experiment, name, starts[name], weights.get(name, {})))
    said, problems, warnings = stored.room(where, experiment, states, params, starts)
    found.tell("room", said)
    told.config += problems
    told.warnings += warnings
    return starts, weights


def _look_at_weights(found: Found, look, wait: float | None) -> dict:
    """The sources by stage that `look()` gives beside what is wrong with them; none where it takes too long: of a
    training checkpoint that a stage begins with all files are summed."""
    with found.timed("weights"):
        done, _ = opening.within({"": look}, wait)
    if not done:
        found.warnings.append(
            "stages.*.init: NOT LOOKED AT, to read the weights takes longer than a dry run does"
        )
    problems, weights = done.get("", ([], {}))
    found.config += problems
    return weights


def _look_at_tokenizer(found: Found, workdir: pathlib.Path, starts: dict, weights: dict, wait: float | None):
    experiment = found.experiment
    directory = pathlib.Path(experiment.tokenizer or workdir)
    found.warnings += (cut := [] if experiment.tokenizer else stored.cut_tokenizer(workdir))
    try:
        if (directory / "tokenizer.json").is_file() and not cut:
            found.named, tokenizer = str(directory / "tokenizer.json"), Tokenizer.load(directory)
        elif experiment.tokenizer or found.data or not (found.sources or found.late):
            return  # it is told already what is missing
        else:
            vocabulary, sources = experiment.model.transformer.vocabulary, list(found.sources.values())
            learn = lambda: catalog.learn_tokenizer(sources, experiment.template, vocabulary)
            learned = {} if found.late else opening.within({"": learn}, wait)[0]
            if not learned:
                found.warnings.append(
                    "tokenizer: NOT LOOKED AT, nor the first records by it: to learn it from the data takes longer "
                    "than a dry run does"
                )
                return
            found.learned, tokenizer = True, learned[""]
        found.processor = opening.processor(experiment, tokenizer)
    except ValueError as error:
        found.config.append(f"tokenizer: {error}")
        return
    ids = ", ".join(f"{name} {i}" for name, i in special_ids(tokenizer).items())
    found.tell("tokenizer", f"{found.named}: {len(tokenizer):,} ids; {ids}")
    found.config += stored.token_problems(experiment, tokenizer, found.named, starts, weights)


def _look_at_records(found: Found, starts: dict, wait: float | None) -> dict[str, str]:
    """What the first record of each data set is; and whether a stage's data is what its checkpoint was trained on."""
    experiment, sources = found.experiment, found.sources
    told, problems, warnings, late = opening.first_records(experiment, sources, found.processor, wait)
    found.late += late
    found.warnings += warnings
    found.data += problems
    if not found.data and not found.late:
        for name in experiment.stages:
            start = starts[name]
            if not start.done:
                wrong, said = opening.position_problems(
                    experiment, name, sources, found.processor, start.position
                )
                found.data += wrong
                found.warnings += said
    return told


def report(found: Found) -> list[str]:
    """What was found, for people."""
    width = max((len(subject) for subject, _ in found.lines), default=0)
    lines = [f"{subject:{width}}  {text}" for subject, text in found.lines]
    lines += [f"WARNING: {text}" for text in found.warnings]
    return [*lines, "seconds: " + ", ".join(f"{part} {s:.1f}" for part, s in found.seconds.items())]
