"""Any weights there are, opened: the layout is detected, and not asked.

`open_source(path)` finds the files, tells the layout by its keys, sets up its table, and reads
nothing yet.
"""

import importlib
import os
import pathlib

from janus_jax.common.arguments import require_flags
from janus_jax.common.text import short
from janus_jax.config import read as config_read
from janus_jax.config.sizes import model_problems
from janus_jax.data.messages import SPECIALS
from janus_jax.data.processor import Processor
from janus_jax.model import config as model_config
from janus_jax.weights import files, foreign, hub, parts, processor_files, run_checkpoint, settings
from janus_jax.weights import table as tb
from janus_jax.weights import tensors as ts
from janus_jax.weights.reader import WeightReader

LAYOUTS = sorted(p.stem for p in (pathlib.Path(__file__).parent / "layouts").glob("[a-z]*.py"))


def layout_module(name: str):
    """One of LAYOUTS. Imported by name, so that a new layout is a file, and who reads our own
    weights meets no other."""
    return importlib.import_module(f"janus_jax.weights.layouts.{name}")


def open_source(
    path, *, allow_pickle=False, allow_extra=False, revision: str | None = None
) -> WeightReader:
    """The weights at a path (directory or file) or hub id. See `WeightReader`; call `require`
    before reading.

    allow_pickle: PyTorch's .bin and .pt may be read, by an unpickler that only rebuilds tensors.
        allow_extra: tensors that no table knows are skipped. Raises NoWeightsError and WeightsError
        with the remedy, TypeError for a path that is none.
    """
    require_flags(allow_pickle=allow_pickle, allow_extra=allow_extra)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path is {short(repr(path), 60)}, a {type(path).__name__}: give the folder or file of "
            'the weights, or a hub id, as a string ("owner/name")'
        )
    try:
        located = hub.local_path(path, revision, allow_pickle)
        if checkpoint := run_checkpoint.find_step(located):
            return _of_run(*checkpoint, allow_extra)
        return _of_files(path, files.find(located, allow_pickle), allow_extra)
    except FileNotFoundError as error:
        raise tb.NoWeightsError(f"{error}{hub.unasked(path, allow_pickle)}") from None
    except ValueError as error:
        raise tb.WeightsError(str(error)) from None


def _processor(reader: WeightReader) -> Processor:
    """The tokenizer and template beside the weights of a whole Janus. Raises FileNotFoundError or
    ValueError, of the weights first: a wrong size in config.json is no fault of these files."""
    reader.require(cast=True)
    if reader.kind == tb.OWN:
        processor = Processor.load(reader.path)
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
    modules = map(layout_module, LAYOUTS)
    found = next((module for module in modules if module.recognises(weights.tensors)), None)
    if found is None:
        first = ", ".join(list(weights.tensors)[:3])
        raise ValueError(
            f"{path}: no layout that is known (its tensors begin {first}); known are this "
            "project's, DeepSeek's and transformers' Janus, SigLIP, DeepSeek-LLM and LlamaGen's "
            f"VQ tokenizer; {foreign.unknown(values or {}, weights.tensors)}".rstrip("; ")
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


def our_shapes(config: model_config.JanusConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all leaves of a model by their paths: as the table of DeepSeek's layout has
    them, since tracing the model takes seconds."""
    rows = layout_module("janus_torch").rows(config) + parts.semantic_rows(config)
    return {row.ours: row.our_shape for row in rows if row.ours.split(".")[0] in config.children}


def _own(weights: files.Weights, values: dict | None, allow_extra: bool) -> WeightReader:
    directory = weights.directory
    config = None
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    rows = tb.own_rows(shapes)
    problems = []
    if values is not None:
        config = sizes(values, directory / "config.json")
        expected = our_shapes(config)
        rows = tb.own_rows(expected)
        problems = tb.differing(shapes, expected)
    manifest = _manifest(directory)
    layout = tb.Layout(
        tb.OWN, rows, config=config, problems=tuple(problems), unshaped=manifest["unshaped"]
    )
    source = WeightReader(weights, layout, allow_extra, manifest, _processor)
    if (directory / "kept.safetensors").is_file():
        source.kept = ts.read_safetensors(directory / "kept.safetensors")
    return source


def _manifest(directory: pathlib.Path) -> dict:
    """The checksums, a part's sizes and the tokenizer's ids in a weights directory's manifest.json,
    as far as they stand there. Raises ValueError naming what cannot stand there."""
    problems = []
    v = settings.Section(settings.read(directory, "manifest.json"), "", problems)
    sums = v.section("crc32")
    for name, x in sums.values.items():
        if not isinstance(x, list):
            sums.refuse(name, x, "a list of checksums, one a layer")
    unshaped = v.section("unshaped")
    for name, x in unshaped.values.items():
        if name not in tb.UNSHAPED or not isinstance(x, int | float):
            unshaped.refuse(name, x, f"a number, for one of {', '.join(tb.UNSHAPED)}")
    tokenizer = v.section("tokenizer")
    ids = tokenizer.section("ids")
    for name, x in ids.values.items():
        if name not in SPECIALS or not isinstance(x, int):
            ids.refuse(name, x, f"the id of one of {', '.join(SPECIALS)}")
    if problems:
        problems = "; ".join(problems[:8])
        raise ValueError(f"{directory}/manifest.json: {problems}; copy the file again")
    sha256 = tokenizer.get("sha256")
    return {
        "crc32": sums.values,
        "unshaped": unshaped.values,
        "tokenizer": {"ids": ids.values, "sha256": sha256},
    }


def _of_run(step: pathlib.Path, notes: tuple[str, ...], allow_extra: bool) -> WeightReader:
    """Stages that read stored image ids hold no VQ tokenizer in their checkpoints: it is read from
    where the stage had it from, or the source is a part."""
    weights, values = run_checkpoint.open_step(step)
    config = sizes(values, step / "manifest.json")
    shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
    children = {name.split(".")[0] for name in shapes}
    expected = our_shapes(config)
    fallback = {}
    lacking = set(config.children) - children
    if lacking == {tb.VQ}:
        wanted = {name: shape for name, shape in expected.items() if name.split(".")[0] == tb.VQ}
        fallback, note = _fallback(step, wanted)
        notes = (*notes, note)
        if fallback:
            lacking = set()
    # What other tasks hand on is as it is there; the rest is of use to its stage alone.
    known = {name.split(".")[0] for name in expected}
    handed_on = children & set(model_config.CHILDREN) - known
    own = {name: shape for name, shape in expected.items() if name.split(".")[0] in children}
    own |= {name: shape for name, shape in shapes.items() if name.split(".")[0] in handed_on}
    rows = tb.own_rows(own)
    others = sorted(children - known - handed_on)
    layout = tb.Layout(
        tb.CHECKPOINT,
        rows,
        tuple(tb.Ignored(f"{child}.*", "what its stage's task alone needs") for child in others),
        config=None if lacking else config,
        unshaped=tb.unshaped(config, children),
        notes=notes,
        problems=tuple(tb.differing(shapes, expected)),
    )
    return WeightReader(weights, layout, allow_extra, {}, _processor, fallback)


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


def sizes(values, where) -> model_config.JanusConfig:
    """The sizes of a model as this project writes them, every one of them given. Raises ValueError
    that lists what is missing, unknown, of a wrong type, out of range, or does not go together.

    values: plain nested dict.
    where: the file, for the message.
    """
    problems = []
    given = values if isinstance(values, dict) else {}
    for name, value in model_config.to_dict(model_config.JanusConfig()).items():
        if name in ("remat", "attention"):  # they change how it computes, not what
            continue
        if name in ("semantic_decoder", "understanding", "generation"):
            continue  # as in Janus where they are missing
        inner = given.get(name) if isinstance(given.get(name), dict) else None
        if name not in given:
            problems.append(f"{name}: missing")
        elif isinstance(value, dict) and inner is not None:
            problems += [f"{name}.{key}: missing" for key in value if key not in inner]
            problems += settings.too_large(inner, f"{name}.")
    problems += settings.too_large(given, "")
    config = config_read.build(model_config.JanusConfig, values, "", problems)
    problems = problems or model_problems(config, "")
    if problems:
        raise ValueError(
            f"{where}: no sizes of a model of this project: {'; '.join(problems[:8])}; give a "
            "weights directory, such as runs/quickstart/stage3"
        )
    return config
