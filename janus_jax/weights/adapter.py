"""An adapter: the low-rank pairs (LoRA) and the children that a stage trained beside a frozen base, in
a small directory, read like the weights that the two make together.

adapter.safetensors holds `lora.<path of a linear map>.a` and `.b` (`model.low_rank`), and whole
children under their usual names; adapter.json what they were trained with (`Facts`), and on which
base; tokenizer, template and manifest.json lie beside, as in a weights directory.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from janus_jax.common.files import ADAPTER_FILE, read_json
from janus_jax.model import low_rank
from janus_jax.model.config import CHILDREN
from janus_jax.weights import differences, files, own, run_checkpoint
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.adapter_facts import (
    BEGUN_FILE,
    Base,
    Begun,
    Facts,
    begun_of,
    find_bases,
    read_facts,
)
from janus_jax.weights.reader import WeightReader, other_sizes

PAIRS = "lora."  # what the names of all pairs begin with
# Of task lora's options: a run's config has those that were given.
DEFAULTS = {"alpha": 32, "rslora": 0}


@dataclasses.dataclass(frozen=True)
class Pair:
    """The names of a pair's rows, the layer of theirs that is meant (None: they are no stack), and
    what the product is multiplied by."""

    a: str
    b: str
    layer: int | None
    scaling: float


class AdapterReader(WeightReader):
    """Leaves of a model, each kernel with its pair merged in as it is read, in float32.

    facts: of the adapter.
    pairs: (kernel's path, layer or None) -> its Pair.
    trained: the leaves that were trained whole, or that no base holds.
    """

    def __init__(self, *reader, facts: Facts, pairs: dict, trained: list[str] | None = None):
        """reader: what a WeightReader is made of."""
        super().__init__(*reader)
        self.facts = facts
        self.pairs = pairs
        mine = [name for name in self.rows if not name.startswith(PAIRS)]
        self.trained = mine if trained is None else trained
        self.leaves = {name: x for name, x in self.leaves.items() if not name.startswith(PAIRS)}
        for base in dict.fromkeys(self.fallback.values()):
            self.kept |= base.kept
        self._adapted = {name for name, _ in pairs}
        if not pairs:
            self._problems.append("missing: the pairs, of which its file holds none; copy it again")
        self._problems += [
            f"unknown: {name} has a pair, and no such matrix is in the model"
            for name in sorted(self._adapted - self.leaves.keys())
        ]

    @property
    def paths(self) -> list:
        bases = dict.fromkeys(self.fallback.values())
        return [self.path, *(path for base in bases for path in base.paths)]

    def half(self, name: str, layer: int | None) -> np.ndarray:
        """A matrix of a pair, by the name of its row: [in, r] or [r, out]."""
        return super().read(name, layer)

    def half_dtype(self, name: str) -> np.dtype:
        """Its type as stored."""
        return self.tensors[self.rows[name].names[0]].dtype

    def read(self, name: str, layer: int | None = None) -> np.ndarray:
        if name not in self._adapted:
            return super().read(name, layer)
        if layer is None and tb.stacked(name):
            shape, dtype = self.leaves[name]
            out = np.empty(shape, dtype)
            for i in range(shape[0]):
                ts.fill(out[i], self.read(name, i))
            return out
        kernel = super().read(name, layer)
        if (name, layer) not in self.pairs:
            return kernel
        pair = self.pairs[name, layer]
        linear = {"kernel": kernel.astype(np.float32)}
        both = {"a": self.half(pair.a, pair.layer), "b": self.half(pair.b, pair.layer)}
        return low_rank.merged(linear, both, pair.scaling)["kernel"]


def open_adapter(
    directory: pathlib.Path, given, open_base: Callable, allow: dict, processor: Callable
) -> AdapterReader:
    """An adapter of this project over its base.

    directory: of the adapter.
    given: paths where its base is, instead of where it was; empty for none.
    open_base: (path) -> its WeightReader.
    allow: allow_pickle and allow_extra, as of `source.open_source`.
    processor: see WeightReader.
    Raises ValueError that names the file and field, or all places where the base is not.
    """
    facts = read_facts(directory)
    tensors = files.read_file(directory / ADAPTER_FILE)[0]
    bases = find_bases(facts.bases, directory, given, open_base)
    expected = own.our_shapes(facts.config)
    shapes = {name: x.shape for name, x in tensors.items()}
    pairs, pair_shapes = pairs_among(shapes, expected, facts)
    whole = {child for child in map(tb.child, tensors) if child in facts.config.children}
    mine = {name: x for name, x in expected.items() if tb.child(name) in whole}
    fallback = {}
    problems = []
    for base in bases:
        found = {name: shape for name, (shape, _) in base.leaves.items() if name in expected}
        wrong = differences.differing(found, expected) + other_sizes(base, facts.config)
        problems += [f"{base.path}: {line}" for line in wrong]
        fallback |= {name: base for name in found if name not in mine}
    lacking = sorted({tb.child(name) for name in expected.keys() - mine.keys() - fallback.keys()})
    if lacking:
        problems.append(f"missing: {', '.join(lacking)}, which neither it nor its base holds")
    layout = tb.Layout(
        tb.ADAPTER, tb.own_rows(mine | pair_shapes), config=facts.config, problems=tuple(problems),
        notes=notes_of(facts, bases),
    )  # fmt: skip
    weights = files.Weights(directory, tensors, {}, [])
    manifest = own.own_manifest(directory)
    reader = weights, layout, allow["allow_extra"], manifest, processor, fallback
    return AdapterReader(*reader, facts=facts, pairs=pairs)


def notes_of(facts: Facts, bases: list[WeightReader]) -> tuple[str, ...]:
    """What the user should know: which weights were found as its base, and their own notes."""
    over = ", ".join(str(base.path) for base in bases)
    return f"pairs of rank {facts.rank} are merged into {over}", *(
        n for b in bases for n in b.notes
    )


def of_checkpoint(reader: tuple, expected: dict) -> AdapterReader:
    """A checkpoint of a stage that trains pairs: they are merged into the base that lies beside them.

    reader: what its WeightReader would be made of.
    expected: the shapes of the model's leaves.
    """
    weights, layout, *rest = reader
    step = weights.directory
    stage, init = run_checkpoint.stage_of(step)
    if not stage:
        raise ValueError(
            f"{step}: it holds low-rank pairs, and {step.parent.name} is no stage of its run's config, "
            "which says by what their products are multiplied; give the folder of its stage the "
            "stage's name"
        )
    begun = Begun(tuple(Base(str(path)) for path in init), CHILDREN)
    if (step.parent / BEGUN_FILE).is_file():
        begun = begun_of(read_json(step.parent / BEGUN_FILE))
    options = DEFAULTS | stage["options"]
    shapes = {name: x.shape for name, x in weights.tensors.items()}
    rank = next(x[-1] for name, x in shapes.items() if name.startswith(PAIRS) and name[-2:] == ".a")
    options["rank"] = rank
    facts = Facts(
        rank, options["alpha"], bool(options["rslora"]), options, begun.bases, layout.config,
    )  # fmt: skip
    pairs, pair_shapes = pairs_among(shapes, expected, facts)
    rows = [row for row in layout.rows if not row.ours.startswith(PAIRS)]
    layout = dataclasses.replace(layout, rows=[*rows, *tb.own_rows(pair_shapes)])
    weights = dataclasses.replace(weights, tensors=_widened(weights.tensors))
    given = {child for child in begun.held if child not in stage["trainable"]}
    trained = [row.ours for row in rows if tb.child(row.ours) not in given]
    return AdapterReader(weights, layout, *rest, facts=facts, pairs=pairs, trained=trained)


class _Widened:
    """An int8 kernel of a checkpoint with its scale, as the float32 that they stand for."""

    dtype = np.dtype(np.float32)

    def __init__(self, kernel, scale):
        self.kernel = kernel
        self.scale = scale
        self.shape = kernel.shape

    def read(self, rows: slice | None = None) -> np.ndarray:
        linear = {"kernel": self.kernel.read(rows), "scale": self.scale.read(rows)}
        return low_rank.whole_kernel(linear)


def _widened(tensors: dict) -> dict:
    out = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype == np.int8:
            out[name] = _Widened(tensor, out.pop(f"{name.removesuffix('kernel')}scale"))
    return out


def pairs_among(shapes: dict, expected: dict, facts: Facts) -> tuple[dict, dict]:
    """((kernel's path, layer) -> Pair, name of a pair's half -> the shape due).

    shapes: of all tensors, by our names.
    expected: of the model's leaves.
    """
    pairs = {}
    due = {}
    paths = {name[len(PAIRS) :].rpartition(".")[0] for name in shapes if name.startswith(PAIRS)}
    for path in sorted(paths):
        kernel = f"{path}.kernel"
        a, b = (f"{PAIRS}{path}.{half}" for half in "ab")
        *layers, d_in, d_out = expected.get(kernel, (0, 0))
        due |= {a: (*layers, d_in, facts.rank), b: (*layers, facts.rank, d_out)}
        for layer in range(layers[0]) if layers else [None]:
            pairs[kernel, layer] = Pair(a, b, layer, facts.scaling)
    return pairs, due
