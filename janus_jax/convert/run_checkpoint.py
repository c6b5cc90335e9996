"""The weights in a training checkpoint: WORKDIR/checkpoints/<stage>, or one step of it, without its moments.

Orbax's StandardSave keeps a train state in <step>/state: an array of tensorstore (zarr in an OCDBT key-value store)
for each leaf, called by its path, `frozen.transformer.blocks.gate.kernel`; its _METADATA lists them. manifest.json has
the sums of files and leaves and the run's config; the run's work directory has the tokenizer it trains with.
"""

import functools
import pathlib

import numpy as np
import tensorstore

from janus_jax import checksums
from janus_jax.convert import table as tb
from janus_jax.convert.files import OWN_FILE, Weights, read_json
from janus_jax.data.processor import Processor, Template
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model import config as model_config

KIND = "checkpoint"
PARTS = ("trainable", "frozen")


class Leaf:
    """One array of a step, read like a `tensors.Tensor`. key: its path in the state. written: the sum with
    which it was saved (`checksums.of_array`).

    Its chunks in the files span all layers. So the first layer asked for reads the whole array, which is let go with
    the last one: a conversion holds one leaf, a model that is unrolled while it is read holds all stacked leaves.
    """

    def __init__(self, step: pathlib.Path, key: str, store: tensorstore.TensorStore, written: str):
        self.step, self.key, self.store, self.written = step, key, store, written
        self.shape, self.dtype = tuple(store.shape), np.dtype(store.dtype.numpy_dtype)
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
            raise tb.WeightsError(f"{self.step}: {self.key} cannot be read: {wrong}; {remedy(self.step)}")
        return x


def locate(path: pathlib.Path) -> tuple[pathlib.Path, tuple[str, ...]] | None:
    """(the directory of a step, what the user should know) where the path is one, or that of a stage, which means
    its latest sound step; None where it is neither.

    Raises WeightsError where no files are as they were written, NoWeightsError where a stage has no step yet.
    """
    path = path.absolute()
    if not path.is_dir() or (path / OWN_FILE).is_file():
        return None
    if (path / "state").is_dir():
        if found := problems(path):
            raise tb.WeightsError(f"{path}: damaged checkpoint; {remedy(path)}:{tb.listed(found)}")
        return path, ()
    stages = [p for p in sorted(path.glob("checkpoints/*/")) if steps(p)]
    if stages:
        there = ", ".join(map(str, (*sorted(p.parent for p in path.glob(f"*/{OWN_FILE}")), *stages)))
        raise tb.NoWeightsError(
            f"{path}: the work directory of a run; give what one of its stages left: {there}"
        )
    damaged, notes = {}, []
    for step in steps(path):
        if not (found := problems(step)):
            return step, (*notes, f"{path}: step {step.name} is read, the latest sound one")
        damaged[step] = found
        notes.append(f"DAMAGED CHECKPOINT, passed over: {step}:{tb.listed(found)}")
    if damaged:
        raise tb.WeightsError("\n".join([f"{path}: every checkpoint is damaged", *notes]))
    if path.parent.name == "checkpoints":
        raise tb.NoWeightsError(f"{path}: no step of this stage has been saved yet")
    return None


def steps(stage: pathlib.Path) -> list[pathlib.Path]:
    """The directories of a stage's steps, latest first."""
    found = [p for p in stage.iterdir() if p.name.isdigit() and (p / "state").is_dir()]
    return sorted(found, key=lambda p: -int(p.name))


def problems(step: pathlib.Path) -> list[str]:
    """What is wrong with a step's files. All are read, once a process as long as they are not written again."""
    try:
        files = [p.stat() for p in step.rglob("*") if p.is_file()]
    except FileNotFoundError as error:
        return [
            f"{error.filename}: gone while it was looked at; has its run deleted the step (checkpoints.keep)?"
        ]
    return _problems(step, tuple(sorted((s.st_ino, s.st_size, s.st_mtime_ns) for s in files)))


@functools.lru_cache(maxsize=64)
def _problems(step: pathlib.Path, _) -> list[str]:
    return checksums.problems(step)


def remedy(step: pathlib.Path) -> str:
    """What to give instead of a damaged step."""
    number = int(step.name.removeprefix("damaged-")) if step.name.removeprefix("damaged-").isdigit() else 0
    sound = (p for p in steps(step.parent) if int(p.name) < number and not problems(p))
    earlier = next(sound, None)
    return f"an earlier one is sound: {earlier}" if earlier else f"no earlier one is sound in {step.parent}"


def workdir(step: pathlib.Path) -> pathlib.Path:
    return step.absolute().parents[2]


def run_config(step: pathlib.Path) -> dict:
    """The config of the run that saved the step, as plain values."""
    path = workdir(step) / "config.json"
    if config := checksums.read(step).get("config"):
        return config
    if not path.is_file():
        raise tb.NoWeightsError(
            f"{step}: neither its manifest nor {path} has the config of its run, which says the model's sizes; copy "
            f"the config there"
        )
    return read_json(path)


def read(step: pathlib.Path) -> tuple[Weights, model_config.JanusConfig]:
    """The weights of a step by our own names, located and not read, and the sizes of the run's model."""
    values, sums = run_config(step), checksums.read(step)["leaves"]
    try:
        config = model_config.from_dict(values["model"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise tb.WeightsError(f"{step}: no config of a run ({type(error).__name__}: {error})") from None
    keys = _keys(step)
    names = {key: key.split(".", 1)[1] for key in keys if key.split(".")[0] in PARTS}
    left_out = {key: "the optimiser's moments and the run's counts" for key in keys if key not in names}
    asked = {key: tensorstore.open(_spec(step, key), open=True, read=True) for key in names}
    try:
        tensors = {
            names[key]: Leaf(step, key, found.result(), sums[key]["sum"]) for key, found in asked.items()
        }
    except (ValueError, KeyError) as error:
        raise tb.WeightsError(f"{step}: cannot be opened ({error}); {remedy(step)}") from None
    return Weights(step, tensors, left_out, []), config


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


def read_processor(step: pathlib.Path, config: model_config.JanusConfig) -> Processor:
    """As `preflight.make_processor` made it for the run. Raises WeightsError where its tokenizer is another by now."""
    values, position = run_config(step), step / "data" / "metadata"
    tower, vq, e = config.understanding_encoder, config.generation_encoder, values["evaluation"]
    directory = values["tokenizer"] or workdir(step)
    tokenizer = Tokenizer.load(directory)
    saved = read_json(position)["fingerprint"]["tokenizer"] if position.is_file() else tokenizer.fingerprint
    if tokenizer.fingerprint != saved:
        raise tb.WeightsError(
            f"{directory}/tokenizer.json: {tokenizer.fingerprint}, and {step} was trained with {saved}: a wrong "
            f"tokenizer; put back the one that its run began with"
        )
    numbers = tower.tokens, vq.tokens, e["cfg_scale"], e["temperature"]
    return Processor(tokenizer, Template(**values["template"]), *numbers)


def init_of(step: pathlib.Path) -> list[pathlib.Path]:
    """What the step's stage began with, in order: the paths of its `init`, as its config says them."""
    values = run_config(step)
    stages, previous = values.get("stages", {}), "stage0"
    for name, stage in stages.items():
        if name == step.parent.name:
            return [workdir(step) / previous if x == "previous" else pathlib.Path(x) for x in stage["init"]]
        previous = name
    return []
