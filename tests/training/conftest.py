"""Weights of the tiny model, a run that has begun with them, models that are traced once and
tokenizers that are learned once."""

import dataclasses
import os
import shutil

import jax
import pytest
from flax import nnx
from support import tiny, two_processes
from support.mesh import on_mesh
from support.rehearsal import TINY

from janus_jax.checkpoint import checksums, inspect
from janus_jax.checkpoint.checksums import paths
from janus_jax.config import read
from janus_jax.data import catalog
from janus_jax.training import preflight_weights, run_dir
from janus_jax.weights import load as plain_weights

TRACED, LEARNED = {}, {}


@pytest.fixture(scope="module")
def traced_once():
    """Most configs have the same few models, and learn their tokenizer of the same few data sets."""
    plain = preflight_weights.abstract

    def abstract(model):
        key = dataclasses.replace(model, remat="none"), jax.sharding.get_abstract_mesh()
        if key not in TRACED:
            TRACED[key] = plain(model)
        return TRACED[key]

    learn = catalog.learn_tokenizer

    def learned(sources, template, *numbers):
        key = tuple(source.fingerprint for source in sources), repr(template), numbers
        if key not in LEARNED:
            LEARNED[key] = learn(sources, template, *numbers)
        return LEARNED[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight_weights, "abstract", abstract)
        patch.setattr(catalog, "learn_tokenizer", learned)
        yield


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """`weights` of the tiny model, with its tokenizer."""
    directory = tmp_path_factory.mktemp("files")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(two_processes.MODEL)))
        plain_weights.export(directory / "weights", params, two_processes.MODEL, tiny.processor())
    return directory


@pytest.fixture
def weights(files, monkeypatch):
    """What the tiny config begins with."""
    monkeypatch.setenv("WEIGHTS", str(files / "weights"))


@pytest.fixture(scope="session")
def begun(files):
    """A work directory with checkpoints of steps 3 and 4 of the tiny config, and the flags of its
    run."""
    workdir = files / "begun"
    os.environ["WEIGHTS"] = str(files / "weights")
    flags = {"tokenizer": str(files / "weights")}
    e, _ = read.read(TINY, flags)
    run_dir.same_run(e, workdir)
    (workdir / "run").write_text("abc")
    state = preflight_weights.shapes(e, 8)[0]["only"]
    facts = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype)}
        for name, x in paths(inspect.leaves(state))
    }
    for step in (3, 4):
        directory = workdir / "checkpoints" / "only" / str(step)
        (directory / "state").mkdir(parents=True)
        (directory / "state" / "arrays").write_bytes(b"\0" * 100)
        checksums.write(directory, {"step": step, "run": "abc", "leaves": facts})
    return workdir, flags


@pytest.fixture
def copy(begun, weights, tmp_path):
    """`begun` once more, to be damaged."""
    shutil.copytree(begun[0], tmp_path / "run")
    return tmp_path / "run", begun[1]
