"""A directory of plain weights, when a stage is done.

Weights directory: model.safetensors (keys are paths joined by dots), manifest.json (its checksums),
config.json, and the processor's files; what a stage hands on. `load` and a stage's start read it,
and every other layout that `weights.source` knows (a training checkpoint among them), tensor by
tensor.
"""

import dataclasses
import functools
import logging
import operator

import jax
import ml_dtypes
import numpy as np
from flax import nnx

from janus_jax.common import heap
from janus_jax.common.arguments import require_flags
from janus_jax.common.text import short
from janus_jax.data.processor import Processor
from janus_jax.distributed import arrays, processes
from janus_jax.model import config as model_config
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax
from janus_jax.model.janus import Janus, abstract
from janus_jax.model.serving import PARTS, on_cpu, serving
from janus_jax.weights import processor_files, table, target
from janus_jax.weights.reader import (
    WeightReader,
    children,
    flatten,
    other_sizes,
    require_fit,
)
from janus_jax.weights.source import open_source
from janus_jax.weights.tensors import contiguous

CAST = (
    "kernel",
    "table",
    "positions",
)  # leaves whose every use casts them to the compute dtype first


def export(
    directory, params: dict, config: model_config.JanusConfig | None = None, processor=None,
    part_of: model_config.JanusConfig | None = None,
):  # fmt: skip
    """Writes a weights directory (float32) in one move: it is there complete, or not at all.

    config: of a whole model.
    part_of: of the model of which `params` are some children.
    Raises ValueError for the unrolled form, whose layers are regrouped.
    """
    if "layers" in params.get("transformer", ()):
        raise ValueError(
            f"{directory}: these weights are in the unrolled form, which only draws and answers; "
            f"load(path, unrolled=False) gives the one that is saved"
        )

    unshaped = table.unshaped(part_of, params) if part_of else None
    write = lambda entries: target.write_own(
        directory, entries, config, processor, unshaped=unshaped
    )
    gather(directory, params, write)


def gather(directory, params: dict, write):
    """Calls write(entries) with the leaves of `params` in float32, as `target.TensorToWrite`s, on the
    process that writes for all; returns on all when the directory is there."""

    def entry(name: str, x) -> target.TensorToWrite:
        def pieces():
            for piece in arrays.pieces(x, table.stacked(name)):
                yield np.ascontiguousarray(piece, np.float32)

        return target.TensorToWrite(name, tuple(x.shape), np.dtype(np.float32), pieces)

    entries = [entry(name, x) for name, x in sorted(flatten(params).items())]
    if processes.is_lead():
        write(entries)
    else:  # what it writes is gathered from all processes, in its order
        for e in entries:
            for _ in e.pieces():
                pass
    processes.barrier(f"{directory} is there")


def import_weights(
    path, params: dict, *, partly: bool = False, config=None, tokenizer=None, say=print
) -> tuple[dict, list[str]]:
    """`params` with the tensors of a source put in their place, on their shardings, one by one.

    path: anything that `weights.source.open_source` knows, pickles excepted. partly: it may hold
        some children only. config: the model's; the sizes that no shape tells (heads, rope_theta,
        ...) are compared with it.
    tokenizer: the run's; that of a whole model is compared with it. Returns the tree and the
        children that were read. Raises WeightsError naming every tensor that is missing, unknown or
        of another shape or type, or damaged.
    """
    source = processes.all_or_none(lambda: open_source(path))
    processes.require_equal(
        {f"what {path} means": str(source.path)}
    )  # a run may be saving its next step meanwhile
    for note in source.notes:
        say(note)
    wrong = other_sizes(source, config) if config is not None else []
    held = require_fit(source, params, partly, wrong)
    source.require()
    if tokenizer is not None and source.config is not None:
        _require_tokenizer(source, tokenizer, say)
    tree = placed(source, params)
    source.raise_if_damaged()
    return tree, held


def _require_tokenizer(source: WeightReader, tokenizer, say):
    try:
        theirs = source.processor().tokenizer
    except FileNotFoundError as error:
        say(f"{source.path}: its tokenizer is not compared with this run's ({error})")
        return
    processor_files.require_same(source.path, theirs, tokenizer)


def placed(source: WeightReader, tree, prefix: str = "", layer: int | None = None, but=()):
    """`tree` with what the source has of it, read tensor by tensor, or one layer of each stacked
    one. `but`: the beginnings of names that are left as they are."""

    def put(path, x):
        name = prefix + ".".join(str(k.key) for k in path)
        if name not in source.leaves or name.startswith(but):
            return x
        read = lambda i: contiguous(source.read(name, i), x.dtype)
        if layer is None and table.stacked(name):
            return arrays.put_layers(map(read, range(x.shape[0])), x)
        sharding = x.sharding
        if layer is not None:
            sharding = jax.NamedSharding(sharding.mesh, jax.P(*sharding.spec[1:]))
        return arrays.put(read(layer), sharding)

    return jax.tree.map_with_path(put, tree)


def load(
    path, dtype: str | None = None, *, unrolled: bool = True, allow_pickle: bool = False,
    allow_extra: bool = False, revision: str | None = None, base=None,
) -> tuple[Janus, Processor]:  # fmt: skip
    """The model and processor of any Janus: a weights directory of this project, DeepSeek's or
    transformers' layout, local or by hub id ("owner/name", or its page), a training checkpoint
    (WORKDIR/checkpoints/<stage>, or a step there), or an adapter (LoRA, this project's or PEFT's),
    merged into its base as it is read.

    dtype: compute and keep the weights in it ("float32", "bfloat16"; the VQ tokenizer stays in
        float32); by default the compute dtype is the one their config says, and the weights are
        kept as they are stored (float16 and float64 are refused), matrices of the unrolled form in
        the compute dtype. "int8" keeps the layers and heads as `Int8Linear` does, the rest in
        bfloat16, and computes in that (`compute_type`). unrolled: the form that draws and answers
        (`model.transformer.Unrolled`); False gives the stacked one, which trains and is saved.
    allow_pickle: PyTorch's .bin files may be read, tensors only. allow_extra: unknown tensors are
        skipped. revision: of a hub id, a branch, tag or commit. base: of an adapter, the weights
        that it was trained on, where they lie elsewhere by now.
    Without a mesh, one device is used. Raises FileNotFoundError or ValueError naming the file and
    what is wrong with it.
    """
    require_flags(unrolled=unrolled)
    dtypes = (None, "float32", "bfloat16", "int8") if unrolled else (None, "float32", "bfloat16")
    name = dtype if dtype is None or isinstance(dtype, str) else _name(dtype)
    if name not in dtypes:
        raise ValueError(
            f"dtype {short(repr(dtype), 60)}: must be one of {', '.join(dtypes[1:])}; the activations of models "
            "trained in bfloat16 exceed what float16 can hold (65504), and int8 needs the "
            "unrolled form"
        )
    source = open_source(
        path, allow_pickle=allow_pickle, allow_extra=allow_extra, revision=revision, base=base
    )
    if source.config is None:
        held = ", ".join(children(source))
        line = f"{path}: no whole model but {held}; a stage can start from it (its `init`)"
        raise table.WeightsError("\n".join((line, *source.notes)))
    source.require(cast=name is not None)
    for note in source.notes:
        logging.getLogger(__name__).warning(note)
    processor = source.processor()
    config = source.config
    kept = "bfloat16" if name == "int8" else name
    with own_jax():
        if name is not None:
            config = dataclasses.replace(config, dtype=compute_type(name))
        model = _read(source, abstract(config), kept, unrolled, name == "int8")
    heap.trim()
    source.raise_if_damaged()
    model.tokenizer_fingerprint = processor.tokenizer.fingerprint  # which processors are its own
    return model, processor


def compute_type(dtype: str) -> str:
    """In what a model of that `dtype` computes: an int8 one in bfloat16, but where XLA decodes on a CPU,
    which is slow in it, in float32 (products of the understanding tower and the adaptors in bfloat16)."""
    if dtype != "int8":
        return dtype
    return "float32" if on_cpu() and not on_cpu().attends() else "bfloat16"


def _name(dtype) -> str:
    """Of what numpy knows as a type; empty for others."""
    try:
        return str(np.dtype(dtype))
    except (TypeError, ValueError):
        return ""


def _read(
    source: WeightReader, model: Janus, dtype: str | None, unrolled: bool, int8: bool
) -> Janus:
    """The abstract model with its weights, kept in `dtype`; unrolled, its layers are read one by
    one."""

    def kept_as(path, x):
        name = ".".join(str(k.key) for k in path)
        to = source.leaves[name][1] if name in source.leaves else x.dtype
        if dtype is not None:
            to = np.dtype(dtype)
        elif unrolled and name.endswith(CAST):
            to = np.dtype(model.config.dtype)  # what each use would make of it
        return x.update(
            dtype=to
            if to == ml_dtypes.bfloat16 and not name.startswith(f"{table.VQ}.")
            else np.float32
        )

    graphdef, state = nnx.split(model)
    shapes = jax.tree.map_with_path(kept_as, sh.concrete(nnx.to_pure_dict(state)))
    require_fit(source, shapes, partly=False)
    if not unrolled:
        return nnx.merge(graphdef, placed(source, shapes))

    def part(name: str, i: int | None = None):
        definition = nnx.graphdef(operator.attrgetter(name)(model))
        own = functools.reduce(dict.__getitem__, name.split("."), shapes)
        heap.trim()  # what was read for the part before
        return nnx.merge(definition, placed(source, own, f"{name}.", i))

    served = serving(nnx.merge(graphdef, shapes), int8, part)
    # The rest comes last: it is read as it is kept, and a layer that is regrouped is there three times.
    heap.trim()
    graphdef, state = nnx.split(served)
    params = placed(source, nnx.to_pure_dict(state), but=tuple(f"{name}." for name in PARTS))
    return nnx.merge(graphdef, params)
