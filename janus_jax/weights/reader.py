"""Any weights seen as leaves of ours: what is there, what does not balance, and the numbers, one
leaf at a time."""

import fnmatch
import zlib
from collections.abc import Callable

import jax
import numpy as np

from janus_jax.common.text import listed
from janus_jax.model.config import CHILDREN
from janus_jax.weights import differences, files
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts

KEPT = (
    np.float32,
    ts.BFLOAT16,
)  # types of weights that nothing is lost by reading; bfloat16 is float32 cut short


class WeightReader:
    """Leaves of ours in someone's file.

    path: the directory or the checkpoint.
    kind: "janus_jax", "checkpoint", or that of a layout ("deepseek", "transformers", "siglip",
        ...).
    config: the sizes of a whole Janus, None for a part.
    unshaped: the sizes that no shape tells.
    leaves: our path -> (shape, dtype as stored).
    ignored: their key -> why it has no place.
    kept: tensors that only the way back needs.
    fallback: leaves that another reader has for this one, which lacks them.
    processor: reader -> the `data.processor.Processor` beside the weights of a whole Janus.
    """

    def __init__(
        self, weights: files.Weights, layout: tb.Layout, allow_extra: bool, manifest: dict,
        processor: Callable, fallback: dict[str, "WeightReader"] | None = None,
    ):  # fmt: skip
        self.path = weights.directory
        self.kind = layout.kind
        self.config = layout.config
        self.tensors = weights.tensors
        self.layout = layout
        self.manifest = manifest
        self.unshaped = layout.unshaped if layout.config is None else tb.unshaped(layout.config)
        self._passed_over = weights.notes
        self.notes = (*weights.notes, *layout.notes)
        self.rows = {row.ours: row for row in layout.rows}
        self.ignored = dict(weights.left_out)
        self.kept = {}
        self._unknown = []
        self._damage = {}
        self._sort_out(allow_extra)
        self.leaves = {row.ours: (row.our_shape, self._dtype(row)) for row in layout.rows}
        self.fallback = fallback or {}
        self._read_processor = processor
        self.leaves |= {name: other.leaves[name] for name, other in self.fallback.items()}
        self._problems = [*layout.problems, *weights.problems]

    @property
    def paths(self) -> list:
        """All that the numbers are read from: its own path, of an adapter also those of its base."""
        return [self.path]

    def _sort_out(self, allow_extra: bool):
        """Each tensor that no row uses is ignored, kept or unknown."""
        used = {name for row in self.layout.rows for name in row.names}
        for name, tensor in self.tensors.items():
            if name in used:
                continue
            rules = (x for x in self.layout.ignored if fnmatch.fnmatchcase(name, x.pattern))
            rule = next(rules, None)
            if rule is not None:
                self.ignored[name] = rule.reason
                if rule.keep:
                    self.kept[name] = tensor
            elif allow_extra:
                self.ignored[name] = "unknown, and extra tensors are allowed"
            else:
                self._unknown.append(
                    f"unknown: {name} {tensor.shape} (--allow_extra skips such tensors)"
                )

    def _dtype(self, row: tb.Row) -> np.dtype:
        found = {self.tensors[name].dtype for name in row.names if name in self.tensors}
        if len(found) == 1:
            return found.pop()
        if found and all(map(ts.is_float, found)):
            try:
                return np.result_type(*found)
            except TypeError:  # fp8 and bfloat16 have no type in common
                pass
        return np.dtype(np.float32)

    def problems(self, cast: bool = False) -> list[str]:
        """All that does not balance: tensors missing, unknown, of another shape, of a type that is
        not read; sizes that our model cannot have. Nothing is read.

        cast: float16, float64 and fp8 may become the type that was asked for; integers never become
            weights.
        """
        problems = []
        shapes = []
        types = {}  # of those that are not read: names, each kind told once
        for name, row in ((n, r) for r in self.layout.rows for n in r.names):
            if name not in self.tensors:
                problems.append(f"missing: {name} {row.stored}")
                continue
            tensor = self.tensors[name]
            if tensor.shape != row.stored:
                shapes.append(
                    f"shape: {name} is {tensor.shape} in the file, {row.stored} by the config"
                )
            if not ts.is_float(tensor.dtype) or not (cast or tensor.dtype in KEPT):
                types.setdefault(tensor.dtype, []).append(name)
        for dtype, (first, *others) in types.items():
            more = f" (and {len(others)} more)" if others else ""
            due = "a float type is due"
            if ts.is_float(dtype):
                due = (
                    "float32 or bfloat16 is due (dtype=float32 casts it; for a stage's init do so "
                    "once, by python -m janus_jax.weights --dtype=float32)"
                )
            problems.append(f"type: {first} is {dtype}{more}; {due}")
        problems += [
            problem for other in set(self.fallback.values()) for problem in other.problems(cast)
        ]
        return list(dict.fromkeys([*self._problems, *shapes, *problems, *self._unknown]))

    def require(self, cast: bool = False) -> "WeightReader":
        """Itself; raises WeightsError with all `problems`, and the files that were passed over."""
        problems = self.problems(cast)
        if problems:
            passed_over = "".join(f"\n  note: {note}" for note in self._passed_over)
            raise tb.WeightsError(
                f"{self.path}: weights that do not balance ({self.kind}):{listed(problems)}"
                + passed_over
            )
        return self

    def read(self, name: str, layer: int | None = None) -> np.ndarray:
        """A leaf of ours, or one layer of a stacked one; a view of what was read where that will
        do.

        Numbers that are not finite, and bytes of another checksum, are noted for
        `raise_if_damaged`.
        """
        if name in self.fallback:
            return self.fallback[name].read(name, layer)
        row = self.rows[name]
        if row.layers is None or layer is not None:
            return self._read(row, layer)
        shape, dtype = self.leaves[name]
        out = np.empty(shape, dtype)
        for i in range(row.layers):
            ts.fill(out[i], self._read(row, i))
        return out

    def _read(self, row: tb.Row, layer: int | None) -> np.ndarray:
        name, (k, n) = row.name(layer), row.part
        tensor = self.tensors[name]
        rows = None
        if row.scanned:
            rows = slice(layer, layer + 1)
        elif n > 1:
            rows = slice(k * row.piece[0], (k + 1) * row.piece[0])
        try:
            x = tensor.read(rows)
        except ValueError as error:
            raise tb.WeightsError(str(error)) from None
        x = x[0] if row.scanned else x
        self._note_damage(x, name, layer if row.scanned else None)
        return row.transform.to_ours(x)

    def read_kept(self, name: str) -> np.ndarray:
        """A tensor of `kept`, as it is."""
        x = self.kept[name].read()
        self._note_damage(x, name, None)
        return x

    def _note_damage(self, x: np.ndarray, name: str, layer: int | None):
        """Notes what is wrong with these bytes; our own directory has a checksum for each layer."""
        sums = self.manifest.get("crc32", {}).get(name)
        at = layer or 0
        where = name if layer is None else f"{name}, layer {layer}"
        bad = ts.count_not_finite(x) if ts.is_float(x.dtype) else 0
        if sums is not None and (
            at >= len(sums) or zlib.crc32(x.reshape(-1).view(np.uint8)) != sums[at]
        ):
            self._damage[where] = (
                f"checksum: {where} is not what was written; the file is damaged, copy it again"
            )
        elif bad:
            self._damage[where] = (
                f"not finite: {where} holds {bad} infinite or undefined numbers; copy or make the "
                "file again"
            )

    def raise_if_damaged(self):
        """Call when all is read. Raises WeightsError naming every tensor found damaged."""
        for other in set(self.fallback.values()):
            other.raise_if_damaged()
        if self._damage:
            raise tb.WeightsError(
                f"{self.path}: damaged weights:{listed(list(self._damage.values()))}"
            )

    def processor(self):
        """The Processor, tokenizer and template, beside the weights of a whole Janus; None for a part.

        Raises FileNotFoundError or ValueError when they are missing or belong to other weights.
        """
        try:
            return None if self.config is None else self._read_processor(self)
        except FileNotFoundError:
            raise
        except ValueError as error:
            raise tb.WeightsError(str(error)) from None


def flatten(params: dict) -> dict:
    """Leaves by their path, joined by dots."""
    return {".".join(str(k.key) for k in path): x for path, x in jax.tree.leaves_with_path(params)}


def require_fit(source: WeightReader, params: dict, partly: bool, wrong=()) -> list[str]:
    """The children that a source holds; raises WeightsError naming every leaf that does not fit.

    source: what is to be read.
    params: the tree that it is to fill, of arrays or of their shapes.
    partly: it may hold some children only, and others that the tree does not have.
    wrong: what else does not fit, to be told with it.
    """
    found = {name: shape for name, (shape, _) in source.leaves.items()}
    wanted = {name: tuple(x.shape) for name, x in flatten(params).items()}
    held = children(source)
    if partly:
        held = [child for child in held if child in params]
        found = {name: shape for name, shape in found.items() if name.split(".")[0] in held}
        wanted = {name: shape for name, shape in wanted.items() if name.split(".")[0] in held}
        found = differences.taken(source.layout.layers, found, wanted)
        if not held:
            there = ", ".join(children(source))
            raise misfit(source, [f"it holds {there}, and none of {', '.join(params)}"])
    if problems := [*wrong, *misfits(found, wanted)]:
        raise misfit(source, problems)
    return held


def children(source: WeightReader) -> list[str]:
    """The parts of the model that a source holds."""
    return sorted({name.split(".")[0] for name in source.leaves})


def misfits(found: dict[str, tuple], wanted: dict[str, tuple], whole: bool = True) -> list[str]:
    """What keeps the leaves that were found from being those that are wanted, a line each.

    found, wanted: path -> shape.
    whole: nothing else may be there.
    """
    problems = differences.differing(found, wanted)
    problems += [f"missing: {name} {shape}" for name, shape in wanted.items() if name not in found]
    if whole:
        problems += [f"unknown: {name} {x}" for name, x in found.items() if name not in wanted]
    return problems + [
        f"shape: {name} is {found[name]} in the file, {shape} in the model"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]


def other_sizes(source: WeightReader, config) -> list[str]:
    """The sizes that no shape tells in which a source is not of this model."""
    here = tb.unshaped(config, {*CHILDREN, *config.children})
    here[f"{tb.VQ}.latent_scale"] = config.generation_encoder.latent_scale
    here[f"{tb.VQ}.scales"] = " ".join(map(str, config.generation_encoder.scales))
    there = source.unshaped
    if f"{tb.VQ}.codebook" in source.leaves:
        lookups = [{f"{tb.VQ}.codebook_l2_norm": tb.by_direction(x)} for x in (here, there)]
        here, there = ({f"{tb.VQ}.depth": 1} | x | y for x, y in zip((here, there), lookups))
    return [
        f"{key} is {value!r} there, {here[key]!r} here"
        for key, value in there.items()
        if here.get(key, value) != value
    ] + differences.other_depth(source.layout.layers, config)


def misfit(source: WeightReader, problems: list[str]) -> tb.WeightsError:
    return tb.WeightsError(
        f"{source.path} does not fit this model (another config?):{listed(problems)}"
    )
