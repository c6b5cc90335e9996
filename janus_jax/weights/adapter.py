"""An adapter: the low-rank pairs (LoRA) and the children that a stage trained beside a frozen base, in
a small directory, read like the weights that the two make together.

adapter.safetensors holds `lora.<path of a linear map>.a` and `.b` (`model.low_rank`), and whole
children under their usual names; adapter.json what they were trained with (`Facts`), and on which
base; tokenizer, template and manifest.json lie beside, as in a weights directory.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np

from janus_jax.common import provenance
from janus_jax.common.files import ADAPTER_FILE
from janus_jax.common.text import listed
from janus_jax.model import config as model_config
from janus_jax.model import low_rank
from janus_jax.weights import files, hub, own, settings
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.reader import WeightReader, other_sizes

FACTS_FILE = "adapter.json"
PAIRS = "lora."  # what the names of all pairs begin with


@dataclasses.dataclass(frozen=True)
class Base:
    """Weights that pairs were trained beside: their path or hub id as it was given, and
    `weights_mark`, None where it is not known."""

    path: str
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
    """rank, alpha, rslora: of the pairs, see `low_rank.scaling`. options: all that adapter.json says
    of how they were trained, these among it. bases: later ones win. config: of the model, None where
    the base alone says it."""

    rank: int
    alpha: float
    rslora: bool
    options: dict
    bases: tuple[Base, ...]
    config: model_config.JanusConfig | None = None

    @property
    def scaling(self) -> float:
        return low_rank.scaling(self.rank, self.alpha, self.rslora)


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
    trained: the leaves that were trained whole.
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
        wrong = tb.differing(found, expected) + other_sizes(base, facts.config)
        problems += [f"{base.path}: {line}" for line in wrong]
        fallback |= {name: base for name in found if name not in mine}
    lacking = sorted({tb.child(name) for name in expected.keys() - mine.keys() - fallback.keys()})
    if lacking:
        problems.append(f"missing: {', '.join(lacking)}, which neither it nor its base holds")
    layout = tb.Layout(
        tb.ADAPTER, tb.own_rows(mine | pair_shapes), config=facts.config, problems=tuple(problems),
        notes=tuple(note for base in bases for note in base.notes),
    )  # fmt: skip
    weights = files.Weights(directory, tensors, {}, [])
    manifest = own.own_manifest(directory)
    reader = weights, layout, allow["allow_extra"], manifest, processor, fallback
    return AdapterReader(*reader, facts=facts, pairs=pairs)


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


def read_facts(directory: pathlib.Path) -> Facts:
    """Of a directory's adapter.json. Raises ValueError naming what cannot stand there."""
    path = directory / FACTS_FILE
    values = settings.read(directory, FACTS_FILE)
    if values is None:
        raise ValueError(f"{path}: missing; it says on which base the adapter was trained")
    problems = []
    v = settings.Section(values, "", problems)
    rank, alpha = v.whole("rank", None), v.number("alpha", None, above=True)
    rslora = v.flag("rslora", False)
    bases = []
    for i, one in enumerate(v.get("base", ())):
        section = settings.Section(one, f"base[{i}].", problems)
        where, sha256 = section.get("path"), section.get("sha256")
        if not isinstance(where, str) or not isinstance(sha256, str | None):
            problems.append(f"base[{i}] is {settings.brief(one)}: must have a path and its sha256")
        else:
            bases.append(Base(where, sha256))
    problems += [f"{name}: missing" for name in ("rank", "alpha", "base") if not v.get(name)]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems[:8])}; copy the file again")
    options = {name: x for name, x in values.items() if name not in ("base", "model")}
    config = own.sizes(v.get("model"), path)
    return Facts(rank, alpha, rslora, options, tuple(bases), config)


def write_facts(directory: pathlib.Path, facts: Facts):
    """The adapter.json that `read_facts` reads."""
    values = facts.options | {"rank": facts.rank, "alpha": facts.alpha, "rslora": facts.rslora}
    values["base"] = [dataclasses.asdict(base) for base in facts.bases]
    values["model"] = model_config.to_dict(facts.config)
    (directory / FACTS_FILE).write_text(json.dumps(values, indent=2), "utf-8")


def find_bases(
    bases: tuple[Base, ...], directory: pathlib.Path, given, open_base: Callable
) -> list[WeightReader]:
    """The bases of an adapter: among what is given; else where each was, beside the adapter's
    directory or in it, under the last part of its path.

    bases: what the adapter says.
    directory: of the adapter.
    given, open_base: see `open_adapter`. Of several bases, what is given need not be all.
    Raises ValueError that names each place where one was looked for, and why it is not there.
    """
    found = []
    for base in bases:
        name = pathlib.PurePath(base.path).name
        near = [place for place in (directory.parent / name, directory / name) if place.exists()]
        near = [base.path, *near] if hub.is_local(base.path) else [*near, base.path]
        places = [*given, *(near if not given or len(bases) > 1 else [])]
        found.append(_find(base, directory, places, open_base))
    return found


def _find(base: Base, directory: pathlib.Path, places: list, open_base: Callable) -> WeightReader:
    tried = []
    for place in places:
        try:
            source = open_base(place)
        except ValueError as error:
            tried.append(str(error))
            continue
        mark = weights_mark(source)
        if base.sha256 in (None, mark):
            return source
        tried.append(
            f"{place} holds other weights (sha256 {mark[:12]}) than the adapter was trained on "
            f"({base.sha256[:12]})"
        )
    raise tb.WeightsError(
        f"{directory}: an adapter whose base is not found; give the weights that it was trained on, "
        f"{base.path}, by --base (base= in Python):{listed(tried)}"
    )


def weights_mark(source: WeightReader) -> str:
    """SHA-256 of the files that a source's numbers are in, and of what changes their meaning: the
    same on every machine."""
    if source.kind == tb.CHECKPOINT:
        return provenance.digest(source.path / "manifest.json")
    paths = sorted({tensor.path for tensor in source.tensors.values()})
    if isinstance(source, AdapterReader):
        paths += sorted(source.path.glob("adapter*.json"))
    stats = [path.stat() for path in paths]
    return _mark(tuple(paths), tuple((s.st_size, s.st_mtime_ns) for s in stats))


@functools.lru_cache(maxsize=16)
def _mark(paths: tuple[pathlib.Path, ...], _) -> str:
    return hashlib.sha256("".join(map(provenance.digest, paths)).encode()).hexdigest()
