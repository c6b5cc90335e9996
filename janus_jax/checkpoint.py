"""Orbax checkpoints while a stage trains; a directory of plain weights when it is done.

Checkpoint: state (step, weights, moments) and the position in the data, under DIR/<step>.
Weights directory: model.safetensors (keys are paths joined by dots), manifest.json (its checksums),
config.json, and the processor's files; what a stage hands on. `load` and a stage's start read it, and every
other layout that `convert.source` knows, tensor by tensor.
"""

import dataclasses
import pathlib

import grain
import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from janus_jax import sharding as sh
from janus_jax.convert import source as sources
from janus_jax.convert import table, target
from janus_jax.convert.files import OWN_FILE
from janus_jax.convert.tensors import contiguous
from janus_jax.data.processor import Processor
from janus_jax.model import config as model_config
from janus_jax.model.janus import Janus, abstract

FILE = OWN_FILE
VQ = "generation_encoder."


class Checkpointer:
    """Saves and restores one stage. `data` is a Grain iterator, or None when the data is a function of the step."""

    def __init__(self, directory, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self.manager = ocp.CheckpointManager(pathlib.Path(directory).absolute(), options=options)

    def save(self, step: int, state, data=None):
        """Returns once the state is copied; the files are written in the background."""
        items = {"state": ocp.args.StandardSave(leaves(state))}
        if data is not None:
            items["data"] = grain.checkpoint.CheckpointSave(data)
        self.manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, state, data=None):
        """The state of the latest complete checkpoint, and `data` moved to it; `state` itself if there is none."""
        step = self.manager.latest_step()
        if step is None:
            return state
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), leaves(state)
        )
        items = {"state": ocp.args.StandardRestore(target)}
        if data is not None:
            items["data"] = grain.checkpoint.CheckpointRestore(data)
        restored = self.manager.restore(step, args=ocp.args.Composite(**items))["state"]
        return state.replace(**restored)

    def close(self):
        self.manager.wait_until_finished()
        self.manager.close()


def leaves(state) -> dict:
    """What a checkpoint holds of a train state."""
    return {name: getattr(state, name) for name in ("step", "trainable", "frozen", "opt_state")}


def flatten(params: dict) -> dict:
    return {".".join(str(k.key) for k in path): x for path, x in jax.tree.leaves_with_path(params)}


def export(directory, params: dict, config: model_config.JanusConfig | None = None, processor=None):
    """Writes a weights directory (float32) in one move: it is there complete, or not at all."""

    def entry(name: str, x) -> target.Entry:
        def pieces():
            whole = np.ascontiguousarray(x, np.float32)
            yield from whole if table.stacked(name) else [whole]

        return target.Entry(name, tuple(x.shape), np.dtype(np.float32), pieces)

    entries = [entry(name, x) for name, x in flatten(params).items()]
    target.write_own(directory, entries, config, processor)


def import_weights(path, params: dict, *, partly: bool = False, config=None) -> tuple[dict, list[str]]:
    """`params` with the tensors of a source put in their place, on their shardings, one by one.

    path: anything that `convert.source.open_source` knows, pickles excepted. partly: it may hold some children
    only. config: the model's; the sizes that no shape tells (heads, rope_theta, ...) are compared with it.
    Returns the tree and the children that were read.
    Raises ValueError naming every tensor that is missing, unknown or of another shape, or damaged.
    """
    source = sources.open_source(path)
    here = {} if config is None else table.facts(config)
    wrong = [f"{k} is {v!r} there, {here[k]!r} here" for k, v in source.facts.items() if here.get(k, v) != v]
    if wrong:
        raise ValueError(f"{source.path} does not fit this model (another config?):{table.listed(wrong)}")
    return place(source, params, partly)


def place(source: sources.Source, params: dict, partly: bool) -> tuple[dict, list[str]]:
    """See `import_weights`."""
    wanted = flatten(params)
    found = {name: shape for name, (shape, _) in source.leaves.items()}
    children = sorted({name.split(".")[0] for name in found})
    expected = {n: tuple(x.shape) for n, x in wanted.items() if not partly or n.split(".")[0] in children}
    problems = table.differing(found, expected)
    problems += [f"missing: {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"unknown: {name} {shape}" for name, shape in found.items() if name not in expected]
    problems += [
        f"shape: {name} is {found[name]} in the file, {shape} in the model"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        raise ValueError(f"{source.path} does not fit this model (another config?):{table.listed(problems)}")
    source.require()

    def put(path, x):
        name = ".".join(str(k.key) for k in path)
        if name not in found:
            return x
        return jax.device_put(contiguous(source.read(name), x.dtype), x.sharding)

    tree = jax.tree.map_with_path(put, params)
    source.settle()
    return tree, children


def load(
    path, dtype: str | None = None, *, allow_pickle: bool = False, allow_extra: bool = False
) -> tuple[Janus, Processor]:
    """The model and processor of any Janus: a weights directory of this project, DeepSeek's or transformers'
    layout, local or by hub id ("owner/name").

    dtype: compute and keep the weights in it ("float32", "bfloat16"; the VQ tokenizer stays in float32); by
    default the weights are kept as they are stored, float16 as float32, and the compute dtype is the one their
    config says. allow_pickle: PyTorch's .bin files may be read, tensors only. allow_extra: unknown tensors are
    skipped. Without a mesh, one device is used.
    Raises FileNotFoundError or ValueError naming the file and what is wrong with it.
    """
    if dtype is not None and str(np.dtype(dtype)) not in ("float32", "bfloat16"):
        raise ValueError(
            f"dtype {dtype!r}: float32 or bfloat16; the activations of models trained in bfloat16 exceed what "
            f"float16 can hold (65504)"
        )
    source = sources.open_source(path, allow_pickle=allow_pickle, allow_extra=allow_extra)
    if source.config is None:
        children = ", ".join(sorted({name.split(".")[0] for name in source.leaves}))
        raise ValueError(f"{path}: no whole model but {children}; a stage can start from it (its `init`)")
    source.require()
    processor, config = source.processor(), source.config
    sh.ensure_mesh()
    if dtype is not None:
        config = dataclasses.replace(config, dtype=str(np.dtype(dtype)))
    graphdef, state = nnx.split(abstract(config))

    def kept_as(path, x):
        name = ".".join(str(k.key) for k in path)
        stored = source.leaves[name][1] if name in source.leaves else x.dtype
        to = stored if dtype is None else np.dtype(dtype)
        return x.update(dtype=to if to == ml_dtypes.bfloat16 and not name.startswith(VQ) else np.float32)

    shapes = jax.tree.map_with_path(kept_as, sh.concrete(nnx.to_pure_dict(state)))
    params, _ = place(source, shapes, partly=False)
    return nnx.merge(graphdef, params), processor
