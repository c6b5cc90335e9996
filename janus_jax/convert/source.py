"""Any weights there are, seen as leaves of ours: one interface over every layout, detected and not asked.

`open_source(path)` finds the files, tells the layout by its keys, sets up its table, and reads nothing yet.
"""

import fnmatch
import pathlib
import zlib

import numpy as np

from janus_jax.convert import (
    deepseek_llm,
    files,
    hub,
    janus_hf,
    janus_torch,
    llamagen_vq,
    run_checkpoint,
    sidecars,
    siglip,
)
from janus_jax.convert import table as tb
from janus_jax.convert import tensors as ts
from janus_jax.data.processor import Processor
from janus_jax.model import config as model_config

OWN, VQ = "janus_jax", "generation_encoder"
KEPT = (
    np.float32,
    ts.BFLOAT16,
)  # types of weights that nothing is lost by reading; bfloat16 is float32 cut short
LAYOUTS = (janus_torch, janus_hf, siglip, llamagen_vq, deepseek_llm)


class Source:
    """Leaves of ours in someone's file.

    kind: "janus_jax", "checkpoint", "deepseek", "transformers", "siglip", "deepseek_llm" or "llamagen_vq". config:
    the sizes of a whole Janus, None for a part. leaves: our path -> (shape, dtype as stored). ignored: their key ->
    why it has no place. kept: tensors that only the way back needs. facts: sizes that no shape tells. lent: leaves
    that another source holds for this one, which lacks them.
    """

    def __init__(
        self, weights: files.Weights, plan: tb.Plan, allow_extra: bool, manifest: dict,
        lent: dict[str, "Source"] | None = None,
    ):  # fmt: skip
        self.path, self.kind, self.config = weights.directory, plan.kind, plan.config
        self.tensors, self.plan, self.manifest = weights.tensors, plan, manifest
        self.facts = plan.facts if plan.config is None else tb.facts(plan.config)
        self.notes = plan.notes
        self.rows = {row.ours: row for row in plan.rows}
        self.ignored, self.kept = dict(weights.left_out), {}
        self._extra, self._damage = [], {}
        used = {name for row in plan.rows for name in row.names}
        for name, tensor in self.tensors.items():
            if name in used:
                continue
            rule = next((r for r in plan.ignored if fnmatch.fnmatchcase(name, r.pattern)), None)
            if rule or allow_extra:
                self.ignored[name] = rule.reason if rule else "unknown, and extra tensors are allowed"
            else:
                self._extra.append(f"unknown: {name} {tensor.shape} (--allow_extra skips such tensors)")
            if rule and rule.keep:
                self.kept[name] = tensor
        self.leaves = {row.ours: (row.our_shape, self._dtype(row)) for row in plan.rows}
        self.lent = lent or {}
        self.leaves |= {name: other.leaves[name] for name, other in self.lent.items()}
        self._problems = [*plan.problems, *weights.problems]

    def _dtype(self, row: tb.Row) -> np.dtype:
        found = {self.tensors[name].dtype for name in row.names if name in self.tensors}
        if len(found) == 1:
            return found.pop()
        return np.result_type(*found) if found and all(map(ts.is_float, found)) else np.dtype(np.float32)

    def check(self, cast: bool = False) -> list[str]:
        """All that does not balance: tensors missing, unknown, of another shape, of a type that is not read; sizes
        that our model cannot have. Nothing is read.

        cast: float16 and float64 may become the type that was asked for; integers never become weights.
        """
        problems, shapes = [], []
        for name, row in ((n, r) for r in self.plan.rows for n in r.names):
            if name not in self.tensors:
                problems.append(f"missing: {name} {row.stored}")
                continue
            tensor = self.tensors[name]
            if tensor.shape != row.stored:
                shapes.append(f"shape: {name} is {tensor.shape} in the file, {row.stored} by the config")
            if not ts.is_float(tensor.dtype):
                problems.append(f"type: {name} is {tensor.dtype}; a float type is due")
            elif not cast and tensor.dtype not in KEPT:
                problems.append(
                    f"type: {name} is {tensor.dtype}; float32 or bfloat16 is due (dtype=float32 casts it; for a "
                    f"stage's init do so once, by python -m janus_jax.convert --dtype=float32)"
                )
        problems += [problem for other in set(self.lent.values()) for problem in other.check(cast)]
        return list(dict.fromkeys([*self._problems, *shapes, *problems, *self._extra]))

    def require(self, cast: bool = False) -> "Source":
        """Itself; raises WeightsError with all of `check`."""
        problems = self.check(cast)
        if problems:
            raise tb.WeightsError(
                f"{self.path}: weights that do not balance ({self.kind}):{tb.listed(problems)}"
            )
        return self

    def read(self, name: str, layer: int | None = None) -> np.ndarray:
        """A leaf of ours, or one layer of a stacked one; a view of what was read where that will do.

        Numbers that are not finite, and bytes of another checksum, are noted for `settle`.
        """
        if name in self.lent:
            return self.lent[name].read(name, layer)
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
        tensor, rows = self.tensors[name], None
        if row.scanned:
            rows = slice(layer, layer + 1)
        elif n > 1:
            rows = slice(k * row.piece[0], (k + 1) * row.piece[0])
        try:
            x = tensor.read(rows)
        except ValueError as error:
            raise tb.WeightsError(str(error)) from None
        x = x[0] if row.scanned else x
        self._check(x, name, layer if row.scanned else None)
        return row.transform.there(x)

    def read_kept(self, name: str) -> np.ndarray:
        """A tensor of `kept`, as it is."""
        x = self.kept[name].read()
        self._check(x, name, None)
        return x

    def _check(self, x: np.ndarray, name: str, layer: int | None):
        """Notes what is wrong with these bytes; our own directory has a checksum for each layer."""
        sums, at = self.manifest.get("crc32", {}).get(name), layer or 0
        where = name if layer is None else f"{name}, layer {layer}"
        bad = ts.count_not_finite(x) if ts.is_float(x.dtype) else 0
        if sums is not None and (at >= len(sums) or zlib.crc32(x.reshape(-1).view(np.uint8)) != sums[at]):
            self._damage[where] = (
                f"checksum: {where} is not what was written; the file is damaged, copy it again"
            )
        elif bad:
            self._damage[where] = (
                f"not finite: {where} holds {bad} infinite or undefined numbers; copy or make the file again"
            )

    def settle(self):
        """Call when all is read. Raises WeightsError naming every tensor found damaged."""
        for other in set(self.lent.values()):
            other.settle()
        if self._damage:
            raise tb.WeightsError(f"{self.path}: damaged weights:{tb.listed(list(self._damage.values()))}")

    def processor(self) -> Processor | None:
        """The tokenizer and template beside the weights of a whole Janus; None for a part.

        Raises FileNotFoundError or ValueError when they are missing or belong to other weights.
        """
        if self.config is None:
            return None
        if self.kind == OWN:
            processor = Processor.load(self.path)
        else:
            read = run_checkpoint if self.kind == run_checkpoint.KIND else sidecars
            processor = read.read_processor(self.path, self.config)
        sidecars.require_fitting(self, processor.tokenizer)
        return processor


def open_source(path, *, allow_pickle=False, allow_extra=False, revision: str | None = None) -> Source:
    """The weights at a path (directory or file) or hub id. See `Source`; call `require` before reading.

    allow_pickle: PyTorch's .bin and .pt may be read, by an unpickler that only rebuilds tensors. allow_extra:
    tensors that no table knows are skipped. Raises NoWeightsError and WeightsError with the remedy.
    """
    try:
        located = hub.locate(path, revision, allow_pickle)
        if checkpoint := run_checkpoint.locate(located):
            return _of_run(*checkpoint, allow_extra)
        return _of_files(path, files.find(located, allow_pickle), allow_extra)
    except FileNotFoundError as error:
        raise tb.NoWeightsError(str(error)) from None
    except ValueError as error:
        raise tb.WeightsError(str(error)) from None


def _of_files(path, weights: files.Weights, allow_extra: bool) -> Source:
    values = {}
    if (weights.directory / "config.json").is_file():
        values = files.read_json(weights.directory / "config.json")
    children = {name.split(".")[0] for name in weights.tensors}
    if children & set(model_config.CHILDREN) and all("." in name for name in weights.tensors):
        return _own(weights, values, allow_extra)
    layout = next((x for x in LAYOUTS if x.recognises(weights.tensors)), None)
    if layout is None:
        first = ", ".join(list(weights.tensors)[:3])
        raise ValueError(
            f"{path}: no layout that is known (its tensors begin {first}); known are this project's, DeepSeek's "
            f"and transformers' Janus, SigLIP, DeepSeek-LLM and LlamaGen's VQ tokenizer"
        )
    if not values and layout in (janus_torch, janus_hf, deepseek_llm):
        raise ValueError(f"{weights.directory}: no config.json beside the weights; their sizes stand there")
    try:
        plan = layout.plan(values, weights.tensors)
    except (AttributeError, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"{weights.directory}/config.json: its sizes cannot be used ({type(error).__name__}: {error})"
        ) from None
    return Source(weights, plan, allow_extra, {})


def _own(weights: files.Weights, values: dict, allow_extra: bool) -> Source:
    directory, config = weights.directory, None
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    rows, problems = tb.own_rows(shapes), []
    if values:
        config = read_config(directory)
        expected = {row.ours: row.our_shape for row in janus_torch.rows(config)}
        rows, problems = tb.own_rows(expected), tb.differing(shapes, expected)
    manifest_file = directory / "manifest.json"
    manifest = files.read_json(manifest_file) if manifest_file.is_file() else {}
    plan = tb.Plan(OWN, rows, config=config, problems=tuple(problems))
    source = Source(weights, plan, allow_extra, manifest)
    if (directory / "kept.safetensors").is_file():
        source.kept = ts.read_safetensors(directory / "kept.safetensors")
    return source


def _of_run(step: pathlib.Path, notes: tuple[str, ...], allow_extra: bool) -> Source:
    """Stages that read stored image ids hold no VQ tokenizer in their checkpoints: it is read from where the stage
    had it from, or the source is a part."""
    weights, config = run_checkpoint.read(step)
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    children = {name.split(".")[0] for name in shapes}
    expected = {row.ours: row.our_shape for row in janus_torch.rows(config)}
    lent, lacking = {}, set(model_config.CHILDREN) - children
    if lacking == {VQ}:
        wanted = {name: shape for name, shape in expected.items() if name.split(".")[0] == VQ}
        lent, note = _lent(step, wanted)
        notes, lacking = (*notes, note), lacking if not lent else set()
    rows = tb.own_rows({name: shape for name, shape in expected.items() if name.split(".")[0] in children})
    facts = {key: value for key, value in tb.facts(config).items() if key.split(".")[0] in children}
    plan = tb.Plan(
        run_checkpoint.KIND, rows, config=None if lacking else config, facts=facts, notes=notes,
        problems=tuple(tb.differing(shapes, expected)),
    )  # fmt: skip
    return Source(weights, plan, allow_extra, {}, lent)


def _lent(step: pathlib.Path, wanted: dict[str, tuple]) -> tuple[dict[str, Source], str]:
    """The VQ tokenizer from the stage's `init` (as in training, the last that holds it counts), and what to say."""
    tried = []
    for path in reversed(run_checkpoint.init_of(step)):
        try:
            other = open_source(path)
        except tb.WeightsError as error:
            tried.append(str(error))
            continue
        if wanted.items() <= {name: shape for name, (shape, _) in other.leaves.items()}.items():
            return dict.fromkeys(
                wanted, other
            ), f"{VQ} is read from {other.path}: the stage read stored image ids"
        tried.append(f"{path} holds none of its sizes")
    return {}, (
        f"{step} holds no {VQ}, since its stage read stored image ids, and the stage's init gives none: "
        f"{'; '.join(tried) or 'it is empty'}. Put back the weights that init names"
    )


def read_config(directory) -> model_config.JanusConfig:
    """The model's sizes as our own config.json says them. Raises FileNotFoundError when there is none,
    ValueError when it says something else."""
    path = pathlib.Path(directory) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory}: no config.json there, so no whole model; a finished stage writes one"
        )
    try:
        return model_config.from_dict(files.read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no sizes of a model of this project ({type(error).__name__}: {error}); give a weights "
            f"directory, such as runs/quickstart/stage3"
        ) from None
