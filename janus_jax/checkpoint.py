"""Orbax checkpoints while a stage trains; a directory of plain weights when it is done.

Checkpoint: state (step, weights, moments) and the position in the data, under DIR/<step>.
Weights directory: model.safetensors (float32, keys are paths joined by dots), config.json, and the
processor's files; what `janus_jax.load` reads and what hands a stage's weights on.
"""

import dataclasses
import json
import os
import pathlib
import shutil

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

from janus_jax import sharding as sh
from janus_jax.data.processor import Processor
from janus_jax.model import config as model_config
from janus_jax.model.janus import Janus, abstract

FILE = "model.safetensors"


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
    """Writes a weights directory in one move: it is there complete, or not at all."""
    directory = pathlib.Path(directory)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file({name: np.asarray(x, np.float32) for name, x in flatten(params).items()}, partial / FILE)
    if config is not None:
        (partial / "config.json").write_text(json.dumps(model_config.to_dict(config), indent=2))
    if processor is not None:
        processor.save(partial)
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(partial, directory)


def read_config(directory) -> model_config.JanusConfig:
    """The model's sizes as written by `export`. Raises FileNotFoundError when DIR is no weights directory,
    ValueError when its config.json says something else."""
    path = pathlib.Path(directory) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory}: no weights directory of this project (it holds no config.json); a finished run "
            f"writes one per stage, such as runs/quickstart/stage3"
        )
    try:
        return model_config.from_dict(json.loads(path.read_text()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: no sizes of a model of this project ({type(error).__name__}: {error}); give a weights "
            f"directory, such as runs/quickstart/stage3"
        ) from None


def import_weights(directory, params: dict, *, partly: bool = False) -> tuple[dict, list[str]]:
    """`params` with the tensors of DIR put in their place, on their shardings, one by one.

    partly: the directory may hold some children only. Returns the tree and the children that were read.
    Raises ValueError naming every tensor that is missing, unknown or of another shape.
    """
    path = pathlib.Path(directory) / FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no weights there; a finished stage writes this file")
    wanted = flatten(params)
    with safe_open(path, framework="numpy") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        children = sorted({name.split(".")[0] for name in found})
        expected = {n: x for n, x in wanted.items() if not partly or n.split(".")[0] in children}
        problems = [f"missing: {name} {x.shape}" for name, x in expected.items() if name not in found]
        problems += [f"unknown: {name} {shape}" for name, shape in found.items() if name not in expected]
        problems += [
            f"shape: {name} is {found[name]} in the file, {x.shape} in the model"
            for name, x in expected.items()
            if name in found and found[name] != tuple(x.shape)
        ]
        if problems:
            more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
            listed = "\n  ".join(problems[:20])
            raise ValueError(f"{path} does not fit this model (another config?):\n  {listed}{more}")
        tree = jax.tree.map_with_path(
            lambda path, x: _place(file, ".".join(str(k.key) for k in path), x, found), params
        )
    return tree, children


def _place(file, name: str, x, found):
    if name not in found:
        return x
    return jax.device_put(file.get_tensor(name).astype(x.dtype), x.sharding)


def load(path, dtype: str | None = None) -> tuple[Janus, Processor]:
    """The model and processor of a weights directory of this project.

    dtype: compute and keep the weights in it ("float32", "bfloat16"; the VQ tokenizer stays in float32);
    by default weights are float32 and the compute dtype is the trained one. Without a mesh, one device is used.
    Raises FileNotFoundError or ValueError naming the directory and what is wrong with it.
    """
    config = read_config(path)
    sh.ensure_mesh()
    if dtype is not None:
        config = dataclasses.replace(config, dtype=str(np.dtype(dtype)))
    graphdef, state = nnx.split(abstract(config))
    shapes = sh.concrete(nnx.to_pure_dict(state))
    if dtype is not None:
        shapes = {
            name: child
            if name == "generation_encoder"
            else jax.tree.map(lambda x: x.update(dtype=dtype), child)
            for name, child in shapes.items()
        }
    params, _ = import_weights(path, shapes)
    return nnx.merge(graphdef, params), Processor.load(path)
