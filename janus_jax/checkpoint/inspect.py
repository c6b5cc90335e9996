"""What lies in a directory of checkpoints: its steps, which are sound, of which run, and where they
stand in the data.

DIR/<step> is a checkpoint, DIR = WORKDIR/checkpoints/<stage>. Everything here only looks: what is
written, deleted or moved stands in store.py. A run that restores, a dry run and a reader of weights
all decide by these functions.
"""

import contextlib
import dataclasses
import errno
import json
import pathlib
from collections.abc import Callable, Iterator

from janus_jax.checkpoint import checksums
from janus_jax.common.files import has_weights, read_json
from janus_jax.common.text import differences, listed

CHECKPOINTS = "checkpoints"  # in a work directory: a directory for each stage
RUN_CONFIG = "config.json"  # in a work directory: the config of its run
# Beside the steps: the VQ tokenizer of a stage whose images come as stored ids, which its state does
# without.
ASIDE = "aside"
POSITION = "data/metadata"  # in a checkpoint: the position in the data, as Orbax writes JSON
# Of a train state, those that it holds.
FIELDS = ("step", "nonfinite_updates", "trainable", "frozen", "opt_state")


class CheckpointError(ValueError):
    """A checkpoint is not of this run, or does not fit its state."""

    exit_code = "usage"


class CheckpointsUnreadable(OSError):
    """The file system does not let them be read; they may well be sound."""

    exit_code = "not_saved"


class CheckpointsDamaged(CheckpointsUnreadable):
    """There are checkpoints, but none that is sound."""


class NotSaved(OSError):
    """The run is over, or was told to stop, and its last state could not be saved."""

    exit_code = "not_saved"


def stage_directory(workdir: pathlib.Path, stage: str) -> pathlib.Path:
    """Where a stage of a run saves."""
    return workdir / CHECKPOINTS / stage


def steps(directory: pathlib.Path) -> list[int]:
    """The steps whose checkpoints lie in a directory, in order; none where it is not there."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def has_trained(workdir: pathlib.Path) -> bool:
    """Whether any stage of a run has a checkpoint, sound or not."""
    names = (path.name for path in workdir.glob(f"{CHECKPOINTS}/*/*"))
    return any(name.removeprefix("damaged-").isdigit() for name in names)


# Soundness.


def damage(checkpoint: pathlib.Path, deep: bool = True) -> list[str]:
    """What is wrong with the files of one checkpoint, a line each.

    deep: all bytes are summed. Otherwise those of small files and of all that hold no arrays; of
        the others the sizes are compared.
    Raises OSError where the file system does not tell.
    """
    return checksums.problems(checkpoint, deep)


def examine(
    directory: pathlib.Path,
    look: Callable[[pathlib.Path], list[str]] = damage,
    known: dict[int, list[str]] | None = None,
) -> Iterator[tuple[int, list[str]]]:
    """(step, what is wrong with it) of each checkpoint, the latest first, one by one as they are
    asked for.

    look: what finds the damage of one checkpoint.
    known: step -> what is wrong with it, of those that need not be looked at.
    Raises CheckpointsUnreadable where the file system is at fault.
    """
    with _telling(directory):
        found = steps(directory)
    for step in reversed(found):
        with _telling(directory / str(step)):
            problems = (known or {}).get(step) or look(directory / str(step))
        yield step, problems


@contextlib.contextmanager
def _telling(path: pathlib.Path):
    """Says of an error of the file system that it is no damage."""
    try:
        yield
    except OSError as error:
        raise CheckpointsUnreadable(
            errno.EIO,
            f"{error.filename or path}: {error.strerror}; nothing was changed. It may be sound: "
            f"mend the file system or the permissions, and start again",
        ) from error


def latest_sound(
    directory: pathlib.Path,
    look: Callable[[pathlib.Path], list[str]] = damage,
    known: dict[int, list[str]] | None = None,
) -> tuple[int | None, dict[int, list[str]]]:
    """(the latest sound step, None where there is no checkpoint; step -> what is wrong with it, of
    later ones).

    Raises CheckpointsDamaged where there are checkpoints, but none is sound. See `examine`.
    """
    damaged = {}
    for step, problems in examine(directory, look, known):
        if not problems:
            return step, damaged
        damaged[step] = problems
    if damaged:
        raise CheckpointsDamaged(all_damaged(directory, damaged))
    return None, {}


def damage_lines(damaged: dict[int, list[str]]) -> str:
    """The end of a message: what is wrong, a line each."""
    return listed([f"step {step}: {line}" for step, lines in damaged.items() for line in lines])


def all_damaged(directory: pathlib.Path, damaged: dict[int, list[str]]) -> str:
    return (
        f"{directory}: every checkpoint is damaged; put back good files, or remove the directory "
        f"to begin the stage anew:{damage_lines(damaged)}"
    )


def earlier_sound(
    checkpoint: pathlib.Path, look: Callable[[pathlib.Path], list[str]] = damage
) -> pathlib.Path | None:
    """The latest sound checkpoint beside one (DIR/<step> or DIR/damaged-<step>) and before it."""
    number = checkpoint.name.removeprefix("damaged-")
    before = int(number) if number.isdigit() else 0
    paths = (checkpoint.parent / str(step) for step in reversed(steps(checkpoint.parent)))
    return next((path for path in paths if int(path.name) < before and not look(path)), None)


# Whether a checkpoint is this run's, and of this model.


def leaves(state) -> dict:
    """What a checkpoint holds of a train state (of arrays, or of their shapes)."""
    return {name: getattr(state, name) for name in FIELDS}


def known_run(workdir: pathlib.Path) -> str:
    """The id that a work directory's file `run` holds; where a crash has left it empty or away, the
    one that all checkpoints were saved with; else empty."""
    path = workdir / "run"
    text = path.read_text("utf-8", errors="replace").strip("\0 \n") if path.is_file() else ""
    if text:
        return text
    runs = set()
    for manifest in workdir.glob(f"{CHECKPOINTS}/*/[0-9]*/{checksums.NAME}"):
        with contextlib.suppress(OSError, ValueError):
            runs.add(checksums.read_manifest(manifest.parent).get("run"))
    return str(runs.pop() or "") if len(runs) == 1 else ""


def another_run(checkpoint: pathlib.Path, manifest: dict, run: dict) -> str:
    """Why a checkpoint is not taken because another run has saved it; empty if this one has.

    manifest: the checkpoint's.
    run: {"run": this run's id, empty if it is not known}, and its "config", if that is to be
        compared with the other's.
    """
    if manifest.get("run") == run["run"]:
        return ""
    text = (
        f"{checkpoint} is a checkpoint of run {manifest.get('run')}, and this work directory is of "
        f"run {run['run'] or 'not known'} (its file `run`): give that run's --workdir, put back its file, "
        f"or begin a stage with its weights (stages.<name>.init)"
    )
    if "config" not in run:
        return text
    changed = differences(manifest.get("config", {}), run["config"])
    return f"{text}. Their configs differ in:{listed(changed) if changed else ' nothing'}"


def misfit(checkpoint: pathlib.Path, manifest: dict, state: dict) -> str:
    """Why a checkpoint does not fit a train state (its `leaves`), every array named; empty if it
    does."""
    differing = checksums.unfit(manifest, state)
    if not differing:
        return ""
    return (
        f"{checkpoint} does not fit this config's train state (another model, or other children "
        "that learn?); use another --workdir, or the config that it was trained "
        f"with:{listed(differing)}"
    )


# What lies beside the arrays.


def position(checkpoint: pathlib.Path) -> dict | None:
    """Where it stands in the data; None for a stage whose data is a function of the step."""
    path = checkpoint / POSITION
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def workdir_of(checkpoint: pathlib.Path) -> pathlib.Path:
    return checkpoint.absolute().parents[2]


def run_config(checkpoint: pathlib.Path) -> dict:
    """The config of the run that saved it, as plain values. Raises FileNotFoundError where it is
    lost."""
    if config := checksums.read_manifest(checkpoint).get("config"):
        return config
    path = workdir_of(checkpoint) / RUN_CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{checkpoint}: the config of its run is lost; copy it to {path}")
    return read_json(path)


# A stage before it begins.


@dataclasses.dataclass
class StageProgress:
    """Where a stage begins or goes on.

    done: its weights are there.
    step: of the checkpoint that it goes on from, None where it begins.
    held: how many of its checkpoints seem sound.
    position: in the data, as that checkpoint has it.
    problems: why that checkpoint must not be taken.
    lost: why none can be taken, though there are some.
    warnings: what is passed over.
    """

    done: bool = False
    step: int | None = None
    held: int = 0
    position: dict | None = None
    problems: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def begun(self) -> bool:
        """Whether the weights of its `init` are no longer asked for."""
        return self.done or self.step is not None


def inspect_stage(workdir: pathlib.Path, name: str, state: dict, again=False) -> StageProgress:
    """Where stage `name` stands, by headers, sizes and small files: arrays are neither read nor
    summed.

    state: `leaves` of the train state that the config asks for, of arrays or of their shapes.
    again: it goes on though it is done.
    """
    if not again and has_weights(workdir / name):
        return StageProgress(done=True)
    directory = stage_directory(workdir, name)
    try:
        found = dict(examine(directory, lambda checkpoint: damage(checkpoint, deep=False)))
    except CheckpointsUnreadable as error:
        return StageProgress(lost=[error.strerror])
    damaged = {step: problems for step, problems in found.items() if problems}
    sound = [step for step in found if step not in damaged]
    if not sound:
        return StageProgress(lost=[all_damaged(directory, damaged)] if damaged else [])
    progress = StageProgress(step=sound[0], held=len(sound))
    if damaged:
        progress.warnings.append(
            f"{directory}: damaged checkpoints, which the run will not take:{damage_lines(damaged)}"
        )
    chosen = directory / str(progress.step)
    manifest = checksums.read_manifest(chosen)
    progress.position = position(chosen)
    run = {"run": known_run(workdir)}
    wrong = another_run(chosen, manifest, run), misfit(chosen, manifest, state)
    progress.problems += [line for line in wrong if line]
    return progress
