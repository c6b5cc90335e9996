"""Sums of files and of arrays: one changed bit shows, on any mesh."""

import itertools
import json
import os
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh
from support.toy import save_one

from janus_jax.checkpoint import checksums
from janus_jax.checkpoint.inspect import leaves
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.distributed import arrays
from janus_jax.model import sharding as sh

# Arrays


@pytest.mark.parametrize("where", ["in place", "on the devices"])
def test_a_leaf_has_one_sum_on_every_mesh_and_on_the_host(where, monkeypatch):
    if where == "on the devices":  # as on accelerators
        monkeypatch.setattr(checksums, "_is_in_host_memory", lambda x: False)
    values = {
        "a": np.arange(16 * 8 * 24, dtype=np.float32).reshape(16, 8, 24) ** 3,
        "b": np.int32(7),
        "c": np.linspace(0, 1, 64).astype(ml_dtypes.bfloat16),
        "d": np.array([True, False, True]),
        "e": np.zeros((0, 3), np.float32),
    }
    found = []
    for mesh in ((1, 1, 1), (1, 8, 1), (2, 2, 2)):
        with on_mesh(*mesh):
            split = {k: jax.P(sh.ROWS) if np.size(x) > 8 else jax.P() for k, x in values.items()}
            here = jax.sharding.get_mesh()
            found.append(
                checksums.of_leaves(
                    {k: arrays.put(x, jax.NamedSharding(here, split[k])) for k, x in values.items()}
                )
            )
    assert found[0] == found[1] == found[2]
    assert {k: checksums.of_array(np.asarray(x)) for k, x in values.items()} == {
        k: x["sum"] for k, x in found[0].items()
    }


def test_parts_of_an_array_add_up_whatever_axis_is_split(monkeypatch):
    """Rows shorter and longer than a block, and one that is no whole number of them."""
    monkeypatch.setattr(checksums, "BLOCK", 64)
    x = np.random.default_rng(0).standard_normal((8, 6, 72)).astype(np.float32)
    with on_mesh(1, 4, 2):
        mesh = jax.sharding.get_mesh()
        rows, columns = mesh.axis_names[1:]
        splits = [
            (rows,),
            (None, None, rows),
            (rows, columns),
            (columns, None, rows),
            (None, columns),
        ]
        found = {
            checksums.of_leaves({"x": arrays.put(x, jax.NamedSharding(mesh, jax.P(*split)))})["x"][
                "sum"
            ]
            for split in splits
        }
        whole, _ = jax.device_get(
            checksums._examine(arrays.put(x, jax.NamedSharding(mesh, jax.P())))
        )
    assert found == {checksums.of_array(x)} == {f"{int(whole):08x}"}


def test_any_bit_and_any_exchange_changes_the_sum(one_device):
    x = np.random.default_rng(0).standard_normal(500).astype(np.float32)
    sums = {checksums.of_array(x)}
    for place in (0, 1, 255, 499):
        for bit in range(32):
            bits = x.view(np.uint32).copy()
            bits[place] ^= np.uint32(1 << bit)
            sums.add(checksums.of_array(bits.view(np.float32)))
    for i, j in ((0, 1), (3, 400), (498, 499)):
        exchanged, negated = x.copy(), x.copy()
        exchanged[[i, j]] = x[[j, i]]
        negated[[i, j]] *= -1
        sums |= {checksums.of_array(exchanged), checksums.of_array(negated)}
    assert len(sums) == 1 + 4 * 32 + 2 * 3


def test_not_finite_names_leaves_on_any_mesh():
    with on_mesh(1, 4, 2):
        state = tiny.make_state(tiny.TX, ("image_head",))
        not_finite = lambda: [
            name for name, x in checksums.of_leaves(leaves(state)).items() if not x["finite"]
        ]
        assert not_finite() == []
        kernel = state.trainable["image_head"]["fc2"]["kernel"]
        worse = jax.device_put(
            np.full(kernel.shape, [[0.0, *[np.nan] * (kernel.shape[1] - 1)]], np.float32),
            kernel.sharding,
        )
        state.trainable["image_head"]["fc2"]["kernel"] = worse
        assert not_finite() == ["trainable.image_head.fc2.kernel"]


def test_all_of_a_train_state_is_in_the_manifest(tmp_path):
    with on_mesh(1, 4, 2):
        state = tiny.make_state(tiny.TX, ("image_head",))
        checkpointer = Checkpointer(tmp_path / "m")
        checkpointer.save(0, state)
        checkpointer.close()
        manifest = checksums.read_manifest(tmp_path / "m" / "0")
        for name, x in checksums.paths(leaves(state)):
            told = manifest["leaves"][name]
            assert (told["shape"], told["dtype"]) == (list(x.shape), str(x.dtype))
            assert told["sum"] == checksums.of_array(np.asarray(x))
        assert not re.search(r"\bfinite\b", json.dumps(manifest["leaves"]))
    files = {
        str(p.relative_to(tmp_path / "m" / "0"))
        for p in (tmp_path / "m" / "0").rglob("*")
        if p.is_file()
    }
    assert manifest["files"].keys() == files - {checksums.NAME}
    assert all(
        os.path.getsize(tmp_path / "m" / "0" / n) == size
        for n, (size, _) in manifest["files"].items()
    )


# Files


def test_a_manifest_whose_bytes_changed_is_not_believed(opened, tmp_path):
    _, again = opened
    save_one(again)
    path = tmp_path / "c" / "10" / checksums.NAME
    content = path.read_bytes()
    assert json.loads(content)["step"] == 10
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="bytes have changed"):
            checksums.read_manifest(path.parent)
    path.write_bytes(content)
    assert checksums.problems(path.parent) == []


def test_every_bit_of_every_file_is_watched(opened, tmp_path):
    """A flipped bit in any file that Orbax restores from is found."""
    _, again = opened
    save_one(again, 20)
    directory = tmp_path / "c"
    files = [p for p in (directory / "20").rglob("*") if p.is_file()]
    assert len(files) > 5
    unwatched = []
    for file, where in itertools.product(files, (0, -1)):
        content = file.read_bytes()
        changed = bytearray(content)
        if not changed:
            continue
        changed[where] ^= 1
        file.write_bytes(changed)
        if not checksums.problems(directory / "20"):
            unwatched.append(file.name)
        file.write_bytes(content)
    assert checksums.problems(directory / "20") == []
    assert unwatched == []
