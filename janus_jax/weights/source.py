"""Any weights there are, opened: the layout is detected, and not asked.

`open_source(path)` finds the files, tells the layout by its keys, sets up its table, and reads
nothing yet.
"""

import functools
import importlib
import os
import pathlib

from janus_jax.common.arguments import require_flags
from janus_jax.common.text import short
from janus_jax.data.processor import Processor
from janus_jax.model import config as model_config
from janus_jax.weights import (
    differences,
    files,
    foreign,
    hub,
    own,
    processor_files,
    run_checkpoint,
    settings,
)
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.reader import WeightReader

PAIRS = "lora"  # the part of a state that holds low-rank pairs


def open_source(
    path, *, allow_pickle=False, allow_extra=False, revision: str | None = None, base=None
) -> WeightReader:
    """The weights at a path (directory or file) or hub id. See `WeightReader`; call `require`
    before reading.

    allow_pickle: PyTorch's .bin and .pt may be read, by an unpickler that only rebuilds tensors.
    allow_extra: tensors that no table knows are skipped.
    revision: of a hub id, a branch, tag or commit.
    base: of an adapter, the weights that it was trained on, where they lie elsewhere by now.
    Raises NoWeightsError and WeightsError with the remedy, TypeError for a path that is none.
    """
    require_flags(allow_pickle=allow_pickle, allow_extra=allow_extra)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path is {short(repr(path), 60)}, a {type(path).__name__}: give the folder or file of "
            'the weights, or a hub id, as a string ("owner/name")'
        )
    try:
        located = hub.local_path(path, revision, allow_pickle)
        if found := files.adapter_at(located):
            allow = {"allow_pickle": allow_pickle, "allow_extra": allow_extra}
            return _adapted(*found, base, allow)
        if base:
            raise ValueError(f"{path}: whole weights, and base is for an adapter; leave base out")
        if checkpoint := run_checkpoint.find_step(located):
            return _of_run(*checkpoint, allow_extra)
        return _of_files(path, files.find(located, allow_pickle), allow_extra)
    except FileNotFoundError as error:
        raise tb.NoWeightsError(f"{error}{hub.unasked(path, allow_pickle)}") from None
    except ValueError as error:
        raise tb.WeightsError(str(error)) from None


def _adapted(directory, kind: str, base, allow: dict) -> WeightReader:
    """An adapter over its base. Its module is loaded by name: who reads whole weights meets none."""
    open_base = functools.partial(open_source, **allow)
    given = [base] if base else []
    module = importlib.import_module(f"janus_jax.weights.{kind}")
    opens = {tb.ADAPTER: "open_adapter", tb.PEFT: "open_peft"}[kind]
    return getattr(module, opens)(directory, given, open_base, allow, _processor)


def _processor(reader: WeightReader) -> Processor:
    """The tokenizer and template beside the weights of a whole Janus. Raises FileNotFoundError or
    ValueError, of the weights first: a wrong size in config.json is no fault of these files."""
    reader.require(cast=True)
    if reader.kind in (tb.OWN, tb.ADAPTER):
        processor = Processor.load(reader.path)
    elif reader.kind == tb.PEFT and not (reader.path / "processor_config.json").is_file():
        return next(iter(reader.fallback.values())).processor()
    elif reader.kind == tb.CHECKPOINT:
        processor = run_checkpoint.run_processor(reader.path, reader.config)
    else:
        processor = processor_files.read_processor(reader.path, reader.config, reader.kind)
    processor_files.require_fitting(reader, processor)
    return processor


def _of_files(path, weights: files.Weights, allow_extra: bool) -> WeightReader:
    values = settings.read(weights.directory, "config.json")
    if values == {}:
        raise ValueError(
            f"{weights.directory}/config.json: an empty object, and the sizes should stand there; "
            "copy the file again"
        )
    if reduced := foreign.reduced(values or {}, weights.tensors):
        raise ValueError(f"{path}: {reduced}")
    children = {name.split(".")[0] for name in weights.tensors}
    if children & set(model_config.CHILDREN) and all("." in name for name in weights.tensors):
        return _own(weights, values, allow_extra)
    modules = map(own.layout_module, own.LAYOUTS)
    found = next((module for module in modules if module.recognises(weights.tensors)), None)
    if found is None:
        first = ", ".join(list(weights.tensors)[:3])
        raise ValueError(
            f"{path}: no layout that is known (its tensors begin {first}); known are this "
            "project's, DeepSeek's and transformers' Janus, SigLIP, CLIP, InternViT, EVA-02, DeepSeek-LLM, "
            "LlamaGen's VQ tokenizer, diffusers' VQModel and AutoencoderKL; "
            f"{foreign.unknown(values or {}, weights.tensors)}".rstrip("; ")
        )
    if values is None and found.NEEDS_CONFIG:
        raise ValueError(
            f"{weights.directory}: no config.json beside the weights; their sizes stand there"
        )
    kind = (values or {}).get("model_type")
    if kind is not None and found.MODEL_TYPES and kind not in found.MODEL_TYPES:
        raise ValueError(
            f"{weights.directory}/config.json: model_type is {settings.brief(kind)}, and these "
            f"tensors are read as {found.KIND}, whose is {' or '.join(found.MODEL_TYPES)}; take a "
            "Janus, or the config.json of these weights"
        )
    try:
        layout = found.layout(values or {}, weights.tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(
            f"{weights.directory}/config.json: its sizes cannot be used ({type(error).__name__}: "
            f"{error})"
        ) from None
    if layout.problems:
        raise ValueError(f"{weights.directory}/config.json: {'; '.join(layout.problems[:8])}")
    return WeightReader(weights, layout, allow_extra, {}, _processor)


def _own(weights: files.Weights, values: dict | None, allow_extra: bool) -> WeightReader:
    directory = weights.directory
    config = None
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    rows = tb.own_rows(shapes)
    problems = []
    if values is not None:
        config = own.sizes(values, directory / "config.json")
        expected = own.our_shapes(config)
        rows = tb.own_rows(expected)
        problems = differences.differing(shapes, expected)
    manifest = own.own_manifest(directory)
    layout = tb.Layout(
        tb.OWN, rows, config=config, problems=tuple(problems), unshaped=manifest["unshaped"]
    )
    source = WeightReader(weights, layout, allow_extra, manifest, _processor)
    if (directory / "kept.safetensors").is_file():
        source.kept = ts.read_safetensors(directory / "kept.safetensors")
    return source


def _of_run(step: pathlib.Path, notes: tuple[str, ...], allow_extra: bool) -> WeightReader:
    """Stages that read stored image ids hold no VQ tokenizer in their checkpoints: it is read from
    where the stage had it from, or the source is a part. Pairs of task lora are merged into the base
    that lies beside them."""
    weights, values = run_checkpoint.open_step(step)
    config = own.sizes(values, step / "manifest.json")
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    children = {name.split(".")[0] for name in shapes}
    expected = own.our_shapes(config)
    fallback = {}
    lacking = set(config.children) - children
    if lacking == {tb.VQ}:
        wanted = {name: shape for name, shape in expected.items() if name.split(".")[0] == tb.VQ}
        fallback, note = _fallback(step, wanted)
        notes = (*notes, note)
        if fallback:
            lacking = set()
    # What other tasks hand on is as it is there; the rest is of use to its stage alone.
    known = {name.split(".")[0] for name in expected} | {PAIRS}
    handed_on = children & set(model_config.CHILDREN) - known
    mine = {name: shape for name, shape in expected.items() if name.split(".")[0] in children}
    mine |= {name: shape for name, shape in shapes.items() if name.split(".")[0] in handed_on}
    rows = tb.own_rows(mine)
    others = sorted(children - known - handed_on)
    layout = tb.Layout(
        tb.CHECKPOINT,
        rows,
        tuple(tb.Ignored(f"{child}.*", "what its stage's task alone needs") for child in others),
        config=None if lacking else config,
        unshaped=tb.unshaped(config, children),
        notes=notes,
        problems=tuple(differences.differing(shapes, expected)),
    )
    reader = weights, layout, allow_extra, {}, _processor, fallback
    if PAIRS in children:
        return importlib.import_module("janus_jax.weights.adapter").of_checkpoint(reader, expected)
    return WeightReader(*reader)


def _fallback(step: pathlib.Path, wanted: dict[str, tuple]) -> tuple[dict[str, WeightReader], str]:
    """The VQ tokenizer from the stage's `init` (as in training, the last that holds it counts), and
    what to say."""
    tried = []
    for path in reversed(run_checkpoint.init_of(step)):
        try:
            other = open_source(path)
        except tb.WeightsError as error:
            tried.append(str(error))
            continue
        if wanted.items() <= {name: shape for name, (shape, _) in other.leaves.items()}.items():
            note = f"{tb.VQ} is read from {other.path}: the stage read stored image ids"
            return dict.fromkeys(wanted, other), note
        tried.append(f"{path} holds none of its sizes")
    return {}, (
        f"{step} holds no {tb.VQ}, since its stage read stored image ids, and the stage's init "
        f"gives none: {'; '.join(tried) or 'it is empty'}. Put back the weights that init names"
    )
