"""What is stored for a run already, and whether it fits: checkpoints, the weights that a stage begins with, the
tokenizer that they know, and room for more. Reads headers, sizes and small files; never an array.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil

import jax
from flax import nnx

from janus_jax import budget, checksums, optim
from janus_jax import sharding as sh
from janus_jax import train_state as ts
from janus_jax.checkpoint import known_run, leaves
from janus_jax.convert.sidecars import moved_ids, require_same
from janus_jax.convert.source import Source, open_source
from janus_jax.convert.table import facts, listed
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.experiment import Experiment
from janus_jax.model.janus import abstract
from janus_jax.plan import size
from janus_jax.tokenizer_training import vq
from janus_jax.weights import FILE, require_fit

POSITION = "data/metadata"  # in a checkpoint: the position in the data, as Orbax writes JSON


@dataclasses.dataclass
class Start:
    """Where a stage begins or goes on. done: its weights are there; step: of the checkpoint it goes on from, None for
    none; held: how many sound checkpoints there are; position: in the data, as that checkpoint has it."""

    done: bool = False
    step: int | None = None
    held: int = 0
    position: dict | None = None

    @property
    def begun(self) -> bool:
        """Whether the weights of its `init` are no longer asked for."""
        return self.done or self.step is not None


def states(experiment: Experiment, devices: int) -> tuple[dict[str, ts.TrainState], dict]:
    """(stage -> the shapes of its train state, shapes of all weights) on the config's mesh over so many devices,
    which need not be there. Raises ValueError where a layer cannot be split so."""
    m, model = experiment.mesh, experiment.model
    with sh.traced_on(m.data, m.fsdp, m.tensor, devices):
        out = {}
        if experiment.stage0:
            tx = optim.make(experiment.stage0.optim, experiment.stage0.steps)
            init = functools.partial(vq.init_state, config=model.generation_encoder, tx=tx)
            out["stage0"] = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
        graphdef, params = nnx.split(abstract(model))
        params = nnx.to_pure_dict(params)
        for name, stage in experiment.stages.items():
            tx = optim.make(stage.optim, stage.steps)
            without = ("generation_encoder",) if budget.precomputed(experiment, stage) else ()
            parts = {n: x for n, x in params.items() if n not in without}
            trainable = {n: x for n, x in parts.items() if n in stage.trainable}
            frozen = {n: x for n, x in parts.items() if n not in stage.trainable}
            out[name] = jax.eval_shape(lambda a, b: ts.start(graphdef, a, b, tx), trainable, frozen)  # noqa: B023
    return out, params


def stage_line(experiment: Experiment, name: str, start: "Start", weights: dict[str, Source]) -> str:
    """What a stage trains, and from where. weights: what it begins with, by path."""
    if start.done:
        return "is done"
    stage = experiment.stages.get(name, experiment.stage0)
    if start.step is not None:
        return f"goes on from step {start.step:,} of {stage.steps:,}"
    parts = [f"{', '.join(children(source))} <- {path}" for path, source in weights.items()]
    parts += ["the stage before"] * ("previous" in getattr(stage, "init", ()) and not parts)
    learns = ", ".join(getattr(stage, "trainable", ["generation_encoder"]))
    return f"{stage.steps:,} steps of about {stage.batch_size} examples, trains {learns}; from " + (
        "; ".join(parts) or "random weights"
    )


# Checkpoints.


def start(workdir, name: str, state, problems: list[str], lost: list[str], warnings: list[str]) -> Start:
    """Where stage `name` goes on. Checkpoints whose files are not of the size that was written, or whose position in
    the data has changed, are passed over, as the run passes over damaged ones; the other sums are not taken here."""
    if (workdir / name / FILE).is_file():
        return Start(done=True)
    directory = workdir / "checkpoints" / name
    steps = sorted((int(p.name) for p in directory.glob("*") if p.name.isdigit()), reverse=True)
    damaged = {step: _damage(directory / str(step)) for step in steps}
    sound = [step for step in steps if not damaged[step]]
    lines = [f"step {step}: {what}" for step in steps for what in damaged[step]]
    if steps and not sound:
        lost.append(
            f"{directory}: every checkpoint is damaged; put back good files, or remove the directory to begin the "
            f"stage anew:{listed(lines)}"
        )
    elif lines:
        warnings.append(f"{directory}: damaged checkpoints, which the run will not take:{listed(lines)}")
    if not sound:
        return Start()
    chosen = directory / str(sound[0])
    manifest, here = checksums.read(chosen), known_run(workdir) or "not known"
    if manifest.get("run") != here:
        problems.append(
            f"{chosen} is a checkpoint of run {manifest.get('run')}, {workdir} is of run {here} by its file `run`; "
            f"give that run's --workdir, or put back its file"
        )
    if differing := checksums.unfit(manifest, leaves(state)):
        problems.append(
            f"{chosen} does not fit this config's train state (another model, or other children that learn?); use "
            f"another --workdir, or the config that it was trained with:{listed(differing)}"
        )
    return Start(step=sound[0], held=len(sound), position=_position(chosen))


def _damage(directory: pathlib.Path) -> list[str]:
    """Files of a checkpoint that are missing or of another size than was written; and, of the file that is read here,
    changed bytes."""
    try:
        wanted = checksums.read(directory)["files"]
    except OSError as error:
        return [f"{checksums.NAME}: {error.strerror}; it is written last, so the rest may be incomplete"]
    except (ValueError, KeyError) as error:
        return [f"{checksums.NAME}: {error}"]
    found = []
    for name, (count, crc) in wanted.items():
        path = directory / name
        try:
            here = path.stat().st_size
        except OSError as error:
            found.append(f"{name}: {error.strerror}")
        else:
            what = f"has {here} bytes, {count} were written" if here != count else ""
            if name == POSITION and not what:
                what = checksums.compare(path, count, crc)
            found += [f"{name}: {what}"] if what else []
    return found


def _position(checkpoint: pathlib.Path) -> dict | None:
    """Where it stands in the data; None for a stage whose data is a function of the step."""
    path = checkpoint / POSITION
    return json.loads(path.read_text()) if path.is_file() else None


# Weights to begin with.


def init_sources(experiment: Experiment, name: str, workdir: pathlib.Path, params: dict, problems: list[str]):
    """The sources of `stages.<name>.init` that can be opened, by path; those that do not fit the model are
    told. `previous` counts where it is finished. What cannot be opened is told by checks.py."""
    names = ["stage0"] * bool(experiment.stage0) + list(experiment.stages)
    here, out = facts(experiment.model), {}
    for path in experiment.stages[name].init:
        if path == "previous":
            path = workdir / names[names.index(name) - 1]
            if not (path / FILE).is_file():
                continue
        try:
            source = open_source(path)
            if source.check():
                continue
            require_fit(source, params, partly=True)
        except (OSError, ValueError) as error:
            if pathlib.Path(path).exists():
                problems.append(f"stages.{name}.init: {error}")
            continue
        wrong = [
            f"{k} is {v!r} there, {here[k]!r} here" for k, v in source.facts.items() if here.get(k, v) != v
        ]
        if wrong:
            problems.append(
                f"stages.{name}.init: {path} does not fit this model (another config?):{listed(wrong)}"
            )
        out[str(path)] = source
    return out


def children(source: Source) -> list[str]:
    """The parts of the model that a source holds."""
    return sorted({name.split(".")[0] for name in source.leaves})


def cut_tokenizer(workdir: pathlib.Path) -> list[str]:
    """Why the tokenizer that a run learned cannot be read; empty where it can, or something was trained with it."""
    if any(workdir.glob("checkpoints/*/[!.]*")) or any(workdir.glob(f"*/{FILE}")):
        return []
    try:
        Tokenizer.load(workdir)
    except FileNotFoundError:
        return []
    except ValueError as error:
        return [f"tokenizer: {error}. Nothing was trained with it: it is learned again"]
    return []


def token_problems(
    experiment: Experiment, tokenizer: Tokenizer, named: str, starts: dict[str, Start], weights: dict
) -> list[str]:
    """Where the tokenizer of a run, found at `named`, is not the one that its text embeddings were trained with, as far
    as the files beside weights and checkpoints tell. weights: of `init_sources`, by stage."""
    found = []
    for name, sources in weights.items():
        for source in sources.values():
            found += [
                f"stages.{name}.init: {text} (this run's is {named})" for text in _unlike(source, tokenizer)
            ]
    ours = hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest()[:16]
    for name, start in starts.items():
        theirs = (start.position or {}).get("fingerprint", {}).get("tokenizer", ours)
        # Where other data is not accepted, that is told with the rest of the data.
        if theirs != ours and experiment.data.on_change == "accept":
            found.append(
                f"tokenizer: {named} (hash {ours}) is not the one with which {name} was trained up to step "
                f"{start.step} (hash {theirs}); put that file back"
            )
    return found


def _unlike(source: Source, tokenizer: Tokenizer) -> list[str]:
    try:
        if source.config is not None:
            require_same(source.path, source.processor().tokenizer, tokenizer)
        elif "text_embedding" in children(source) and (file := source.path / "tokenizer.json").is_file():
            return moved_ids(file, tokenizer)
    except FileNotFoundError:
        pass  # there is none beside these weights: a run says so and goes on
    except ValueError as error:
        return [str(error)]
    return []


# Room.


def place(workdir: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """(the nearest directory that is there, why nothing can be written into `workdir`)."""
    here = workdir.absolute()
    while not here.exists() and not here.is_symlink() and here != here.parent:
        here = here.parent
    if not here.is_dir():
        what = "a link to nothing" if here.is_symlink() else "a file"
        return here.parent, [f"--workdir={workdir}: {here} is {what}; name a directory, or a new one"]
    if not os.access(here, os.W_OK | os.X_OK):
        return here, [
            f"--workdir={workdir}: {here} cannot be written into (no permission, or a file system that is read-only); "
            f"name a directory that this user can write into"
        ]
    return here, []


def room(
    where: pathlib.Path, experiment: Experiment, states: dict, params: dict, starts: dict[str, Start]
) -> tuple[str, list[str], list[str]]:
    """(what is needed and free, in words; problems; warnings). states: by stage; params: of the whole model.

    A checkpoint is written before an older one is deleted, so a stage holds one more than it keeps for a while; those
    that are there count. Refused is what has no room for two, or for the next one of a stage that has all it keeps.
    """
    free, keep = shutil.disk_usage(where).free, experiment.checkpoints.keep
    lacking = {name: keep - min(start.held, keep) for name, start in starts.items() if not start.done}
    if not lacking:
        return f"nothing more is saved; {size(free)} free in {where}", [], []
    takes = {name: _bytes(leaves(states[name])) for name in lacking}
    weights = {name: _bytes(states[name].params if name == "stage0" else params) for name in lacking}
    whole = max(takes.values()) + sum(
        (n + _kept_for_good(experiment, name)) * takes[name] + weights[name] for name, n in lacking.items()
    )
    told = f"{size(free)} free in {where}"
    remedy = "make room, or name a --workdir elsewhere"
    lines = []
    for name, n in lacking.items():
        if free < (need := min(2, 1 + n) * takes[name]):
            lines.append(
                f"--workdir: {told}, but {name} needs {size(need)}: a checkpoint takes {size(takes[name])}, and one is "
                f"written before an older one is deleted; {remedy}"
            )
    short = [f"{told}, all stages to their end take about {size(whole)}: {remedy}"] if free < whole else []
    said = f"checkpoints of {', '.join(f'{size(takes[n])} ({n})' for n in lacking)}; to the end about {size(whole)}"
    return f"{said}; {told}", lines, [] if lines else short


def _kept_for_good(experiment: Experiment, name: str) -> int:
    """How many of a stage's checkpoints `checkpoints.keep_every` holds back from deletion."""
    stage, every = experiment.stages.get(name, experiment.stage0), experiment.checkpoints.keep_every
    return stage.steps // math.lcm(every, stage.checkpoint_every) if every else 0


def _bytes(tree) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
