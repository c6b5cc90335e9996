"""The weights in a training checkpoint, without its moments: WORKDIR/checkpoints/<stage> means its
latest step, .../<stage>/<step> that step, .../<stage>/best the best one (`checkpoints.best`).

Orbax's StandardSave keeps a train state in <step>/state: an array of tensorstore (zarr in an OCDBT
key-value store) for each leaf, called by its path, `frozen.transformer.blocks.gate.kernel`; its
_METADATA lists them. manifest.json has the sums of files and leaves and the run's config; the run's
work directory has the tokenizer it trains with.
"""

import functools
import pathlib

import numpy as np
import tensorstore

from janus_jax.checkpoint import checksums, evaluated, inspect
from janus_jax.common.files import WEIGHTS_FILE, has_weights, read_json
from janus_jax.common.text import listed
from janus_jax.config.schema import Template
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model import config as model_config
from janus_jax.weights import table as tb
from janus_jax.weights.files import Weights

PARTS = ("trainable", "frozen")
REFERENCE = "reference."  # begins the names of what no model has
BEST = "best"


class Leaf:
    """One array of a step, read like a `tensors.Tensor`. key: its path in the state. written: the
    sum with which it was saved (`checksums.of_array`).

    Its chunks in the files span all layers. So the first layer asked for reads the whole array,
    which is let go with
    the last one: a conversion holds one leaf, a model that is unrolled while it is read holds all
    stacked leaves.
    """

    def __init__(self, step: pathlib.Path, key: str, store: tensorstore.TensorStore, written: str):
        self.step = step
        self.key = key
        self.store = store
        self.written = written
        self.shape = tuple(store.shape)
        self.dtype = np.dtype(store.dtype.numpy_dtype)
        self._whole = None

    def read(self, rows: slice | None = None) -> np.ndarray:
        """The array, or `rows` (start and stop given) of its leading axis."""
        x = self._read() if self._whole is None else self._whole
        if rows is None:
            return x
        self._whole = x if rows.stop < self.shape[0] else None
        return x[rows]

    def _read(self) -> np.ndarray:
        try:
            x = self.store.read().result()
            wrong = "" if checksums.of_array(x) == self.written else "it is not what was saved"
        except ValueError as error:  # what tensorstore raises for any file that is cut or gone
            wrong = str(error)
        if wrong:
            raise tb.WeightsError(
                f"{self.step}: {self.key} cannot be read: {wrong}; {remedy(self.step)}"
            )
        return x


def find_step(path: pathlib.Path) -> tuple[pathlib.Path, tuple[str, ...]] | None:
    """(the directory of a step, what the user should know) where the path is one, or that of a
    stage, which means its latest sound step, or `best` in a stage's; None where it is neither.

    Raises WeightsError where no files are as they were written, NoWeightsError where a stage has no
    step yet.
    """
    path = path.absolute()
    if path.name == BEST and not path.exists() and _is_stage(path.parent):
        return _best(path.parent)
    if not path.is_dir() or (path / WEIGHTS_FILE).is_file():
        return None
    if (path / "state").is_dir():
        if found := problems(path):
            raise tb.WeightsError(f"{path}: damaged checkpoint; {remedy(path)}:{listed(found)}")
        return path, ()
    stages = [p for p in sorted(path.glob(f"{inspect.CHECKPOINTS}/*/")) if _is_stage(p)]
    if stages:
        finished = sorted(filter(has_weights, path.glob("*/")))
        there = ", ".join(map(str, (*finished, *stages)))
        raise tb.NoWeightsError(
            f"{path}: the work directory of a run; give what one of its stages left: {there}"
        )
    if not _is_stage(path):
        if path.parent.name == inspect.CHECKPOINTS:
            raise tb.NoWeightsError(f"{path}: no step of this stage has been saved yet")
        return None
    try:
        step, damaged = inspect.latest_sound(path, problems)
    except inspect.CheckpointsDamaged as error:
        raise tb.WeightsError(str(error)) from None
    notes = [
        f"DAMAGED CHECKPOINT, passed over: {path / str(step)}:{listed(lines)}"
        for step, lines in damaged.items()
    ]
    return path / str(step), (*notes, f"{path}: step {step} is read, the latest sound one")


def _best(stage: pathlib.Path) -> tuple[pathlib.Path, tuple[str, ...]]:
    """`find_step` of the best checkpoint of a stage."""
    steps = inspect.steps(stage)
    metric = run_config(stage / str(steps[-1])).get("checkpoints", {}).get("best")
    if not metric:
        raise tb.NoWeightsError(
            f"{stage}/{BEST}: its run keeps no best checkpoint (checkpoints.best is empty); give "
            f"{stage} for the latest, or one of its steps"
        )
    best = evaluated.best_step(evaluated.records(stage), metric, steps)
    if best is None:
        raise tb.NoWeightsError(
            f"{stage}/{BEST}: none of its checkpoints has a {metric} in {evaluated.FILE}; give "
            f"{stage} for the latest"
        )
    step, notes = find_step(stage / str(best))
    return step, (*notes, f"{stage}: step {best} is read, the best by {metric}")


def _is_stage(path: pathlib.Path) -> bool:
    """Whether checkpoints lie in a directory."""
    return any((path / str(step) / "state").is_dir() for step in inspect.steps(path))


def problems(step: pathlib.Path) -> list[str]:
    """What is wrong with a step's files. All are read, once a process as long as they are not
    written again."""
    try:
        files = [p.stat() for p in step.rglob("*") if p.is_file()]
    except FileNotFoundError as error:
        return [
            f"{error.filename}: gone while it was looked at; has its run deleted the step "
            "(checkpoints.keep)?"
        ]
    return _problems(step, tuple(sorted((s.st_ino, s.st_size, s.st_mtime_ns) for s in files)))


@functools.lru_cache(maxsize=64)
def _problems(step: pathlib.Path, _) -> list[str]:
    return inspect.damage(step)


def remedy(step: pathlib.Path) -> str:
    """What to give instead of a damaged step."""
    if earlier := inspect.earlier_sound(step, problems):
        return f"an earlier one is sound: {earlier}"
    return f"no earlier one is sound in {step.parent}"


def run_config(step: pathlib.Path) -> dict:
    """The config of the run that saved the step, as plain values. Raises NoWeightsError where it is
    lost."""
    try:
        return inspect.run_config(step)
    except FileNotFoundError as error:
        raise tb.NoWeightsError(str(error)) from None


def open_step(step: pathlib.Path) -> tuple[Weights, dict]:
    """The weights of a step by our own names, located and not read, and the model's sizes as the
    run's config has them."""
    values = run_config(step)
    sums = checksums.read_manifest(step)["leaves"]
    keys = _keys(step)
    # A part without leaves, as where nothing is frozen, is a key of its own.
    parts = ((key, *key.partition(".")) for key in keys)
    names = {key: name for key, part, _, name in parts if part in PARTS and name}
    # Of a stage that learns from preferences: what it began with.
    names = {key: name for key, name in names.items() if not name.startswith(REFERENCE)}
    why = "the optimiser's moments, the run's counts and a frozen reference"
    left_out = {key: why for key in keys if key not in names}
    asked = {key: tensorstore.open(_spec(step, key), open=True, read=True) for key in names}
    try:
        tensors = {
            names[key]: Leaf(step, key, found.result(), sums[key]["sum"])
            for key, found in asked.items()
        }
    except (ValueError, KeyError) as error:
        raise tb.WeightsError(f"{step}: cannot be opened ({error}); {remedy(step)}") from None
    return Weights(step, tensors, left_out, []), values.get("model")


def _keys(step: pathlib.Path) -> list[str]:
    path = step / "state" / "_METADATA"
    try:
        entries = read_json(path)["tree_metadata"].values()
        return [".".join(str(part["key"]) for part in entry["key_metadata"]) for entry in entries]
    except (KeyError, TypeError, AttributeError) as error:
        raise tb.WeightsError(
            f"{path}: not what this version of Orbax writes ({type(error).__name__}: {error})"
        ) from None


def _spec(step: pathlib.Path, key: str) -> dict:
    base = {"driver": "file", "path": f"{step.absolute() / 'state'}/"}
    return {"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": f"{key}/"}}


def run_processor(step: pathlib.Path, config: model_config.JanusConfig) -> Processor:
    """As `preflight_processor.run_processor` made it for the run. Raises WeightsError where its tokenizer is
    another by now."""
    values = run_config(step)
    position = inspect.position(step)
    tower = config.understanding_encoder
    vq = config.generation_encoder
    e = values["evaluation"]
    directory = values["tokenizer"] or inspect.workdir_of(step)
    tokenizer = Tokenizer.load(directory)
    saved = tokenizer.fingerprint
    if position is not None:
        saved = position["fingerprint"]["tokenizer"]
    if tokenizer.fingerprint != saved:
        raise tb.WeightsError(
            f"{directory}/tokenizer.json: {tokenizer.fingerprint}, and {step} was trained with "
            f"{saved}: a wrong tokenizer; put back the one that its run began with"
        )
    numbers = tower.tokens, vq.tokens, e["cfg_scale"], e["temperature"]
    return Processor(tokenizer, Template(**values["template"]), *numbers)


def init_of(step: pathlib.Path) -> list[pathlib.Path]:
    """Where the step's stage had its weights from, in order: the paths of its `init`, as its config
    says them, and what it laid aside when it began."""
    aside = step.parent / inspect.ASIDE
    _, found = stage_of(step)
    return [*found, aside] if aside.is_dir() else found


def stage_of(step: pathlib.Path) -> tuple[dict, list[pathlib.Path]]:
    """(the step's stage, as its config has it; the paths of its `init`)."""
    found = []
    stages = run_config(step).get("stages", {})
    names = list(stages)
    here = step.parent.name
    for path in stages[here]["init"] if here in stages else ():
        before = names[: names.index(here)]
        earlier = path == "previous" and before
        found.append(inspect.workdir_of(step) / before[-1] if earlier else pathlib.Path(path))
    return stages.get(here, {}), found
