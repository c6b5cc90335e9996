"""Checkpoints on the disk: named when whole, refused where they are not this run's, tried again where they failed."""

import errno
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tiny
from conftest import on_mesh
from test_guard import Counting, toy_state

from janus_jax import checkpoint as cp
from janus_jax import checksums, optim, steps
from janus_jax import sharding as sh

RUN = {"run": "here", "config": {"seed": 0, "model": {"width": 32}}}


def at(step: int):
    return toy_state().replace(step=jnp.int32(step))


def names(directory) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


@pytest.fixture
def opened(tmp_path, one_device):
    """(what was said, a function that opens a Checkpointer of the same directory)."""
    said, open_ones = [], []

    def again(**how):
        open_ones.append(cp.Checkpointer(tmp_path / "c", RUN | how.pop("run", {}), say=said.append, **how))
        return open_ones[-1]

    yield said, again
    for one in open_ones:
        one.close()


# What lies there


def test_the_last_ones_stay_and_those_of_every_so_many_steps(opened, tmp_path):
    _, again = opened
    checkpointer = again(keep=2, keep_every=20)
    for step in (0, 10, 20, 30, 40, 50, 60, 70):
        checkpointer.save(step, at(step))
    checkpointer.close()
    assert names(tmp_path / "c") == sorted(map(str, (0, 20, 40, 60, 70)))


def test_what_is_deleted_is_out_of_sight_first(opened, tmp_path, monkeypatch):
    """A run that is killed in the midst of a deletion leaves no half of a checkpoint; the next one tidies up."""
    _, again = opened
    checkpointer, seen = again(keep=1), []
    monkeypatch.setattr(
        steps.shutil, "rmtree", lambda path, **_: seen.append(path.name)
    )  # killed before the first file
    for step in (0, 10, 20):
        checkpointer.save(step, at(step))
    checkpointer.wait()
    assert len(seen) == 2 and all(name.startswith(".deleting-") for name in seen)
    assert [name for name in names(tmp_path / "c") if not name.startswith(".")] == ["20"]
    monkeypatch.undo()
    again()
    assert names(tmp_path / "c") == ["20"]


def test_a_save_has_no_name_before_its_sums(opened, tmp_path, monkeypatch):
    _, again = opened
    checkpointer, write, seen = again(), checksums.write, []

    def watched(directory, facts):
        seen.append((directory.name, names(tmp_path / "c")))
        return write(directory, facts)

    monkeypatch.setattr(checksums, "write", watched)
    checkpointer.save(5, at(5), Counting())
    checkpointer.wait()
    ((name, there),) = seen
    assert name.startswith(".saving-5") and there == [name]
    assert names(tmp_path / "c") == ["5"] and checksums.problems(tmp_path / "c" / "5") == []


def test_what_cannot_be_deleted_is_said_and_makes_no_save_fail(opened, tmp_path, monkeypatch):
    said, again = opened
    checkpointer, rename = again(keep=1), os.rename

    def stuck(self, target):
        if self.name == "0":
            raise OSError(errno.EBUSY, "Device or resource busy")
        rename(self, target)

    monkeypatch.setattr(steps.pathlib.Path, "rename", stuck)
    for step in (0, 10, 20):
        checkpointer.save(step, at(step))
    checkpointer.wait()
    assert names(tmp_path / "c") == ["0", "20"]
    assert said and all("0 cannot be deleted (Device or resource busy)" in line for line in said)
    assert not checkpointer.due()


def test_what_stays_for_ever_keeps_its_name(opened, tmp_path, monkeypatch):
    _, again = opened
    monkeypatch.setattr(steps.shutil, "rmtree", lambda *_, **__: None)
    (tmp_path / "c" / ".saving-7.1").mkdir(parents=True)
    found = set()
    for _ in range(3):
        again()
        found |= set(names(tmp_path / "c"))
    assert len(found) == 1


def test_what_a_killed_run_left_half_written_goes(opened, tmp_path):
    _, again = opened
    for name in (".saving-7.1.orbax-checkpoint-tmp", ".deleting-3.12"):
        (tmp_path / "c" / name / "state").mkdir(parents=True)
    (tmp_path / "c" / "notes").mkdir()  # not ours
    state = at(0)
    assert again().restore(state) is state
    assert names(tmp_path / "c") == ["notes"]


# What fits


def saved(again, step=10):
    checkpointer = again()
    checkpointer.save(step, at(step))
    checkpointer.close()


def test_another_run_s_checkpoint_is_refused_with_what_differs(opened, tmp_path):
    _, again = opened
    saved(again)
    other = again(run={"run": "there", "config": {"seed": 0, "model": {"width": 64}}})
    with pytest.raises(cp.CheckpointError, match=r"of run here, this is run there.*--workdir") as error:
        other.restore(at(0))
    assert str(error.value).endswith("\n  model.width: 32 -> 64")
    assert names(tmp_path / "c") == ["10"]


def test_every_leaf_that_differs_is_named_before_any_is_read(opened, monkeypatch):
    _, again = opened
    saved(again)
    checkpointer, state = again(), at(0)
    monkeypatch.setattr(checkpointer._orbax, "restore", lambda *_, **__: pytest.fail("it read"))
    flame = dict(state.trainable["flame"])
    flame["kernel"] = flame["kernel"].T.reshape(-1)
    flame["bias"] = flame["bias"].astype(jnp.bfloat16)
    flame["extra"] = jnp.zeros((2, 3))
    frozen = {}
    with pytest.raises(cp.CheckpointError, match="does not fit this config's train state") as error:
        checkpointer.restore(state.replace(trainable={"flame": flame}, frozen=frozen))
    text = str(error.value)
    kernel = tuple(state.trainable["flame"]["kernel"].shape)
    for line in (
        "missing: trainable.flame.extra, float32 (2, 3)",
        "unknown: frozen.snow.kernel",
        f"trainable.flame.kernel is float32 {kernel} in the checkpoint, float32 ({np.prod(kernel)},) here",
        "trainable.flame.bias is float32",
        "bfloat16",
    ):
        assert line in text
    assert not any(x.is_deleted() for x in jax.tree.leaves(flame)), "the state can still be used"


def written_otherwise(directory):
    """The manifest of a sound checkpoint whose arrays it does not fit."""
    manifest = checksums.read(directory)
    manifest["leaves"]["trainable.flame.bias"]["sum"] = "00000bad"
    files = manifest.pop("files")
    manifest.pop("crc32")
    (directory / checksums.NAME).unlink()
    checksums.write(directory, manifest)
    assert checksums.read(directory)["files"].keys() == files.keys()


def test_arrays_that_were_read_otherwise_than_saved_are_damage(opened, tmp_path):
    """Files that are what was written, arrays that are not: memory, a codec, a reader with a bug."""
    said, again = opened
    saved(again, 10)
    saved(again, 20)
    written_otherwise(tmp_path / "c" / "20")
    state = again().restore(at(0))
    assert int(state.step) == 10
    assert "step 20: trainable.flame.bias was read otherwise than it was saved" in said[-1]
    assert "going on from step 10" in said[-1]
    assert names(tmp_path / "c") == ["10", "damaged-20"]


def test_where_no_array_is_what_was_saved_nothing_is_touched(opened, tmp_path):
    _, again = opened
    for step in (10, 20):
        saved(again, step)
        written_otherwise(tmp_path / "c" / str(step))
    with pytest.raises(
        steps.CheckpointsDamaged, match=r"(?s)every checkpoint is damaged.*step 20: .*step 10: "
    ):
        again().restore(at(0))
    assert names(tmp_path / "c") == ["10", "20"]


def test_a_file_system_that_refuses_is_no_damage(opened, tmp_path, monkeypatch):
    _, again = opened
    saved(again, 10)
    saved(again, 20)

    def refuses(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(checksums, "_sum", refuses)
    with pytest.raises(
        steps.CheckpointsUnreadable, match=r"20.*Permission denied; nothing was changed"
    ) as error:
        again().restore(at(0))
    assert not isinstance(error.value, steps.CheckpointsDamaged)
    assert names(tmp_path / "c") == ["10", "20"]


def test_a_second_damaged_one_of_a_step_does_not_replace_the_first(opened, tmp_path):
    _, again = opened
    saved(again, 10)
    for _ in range(2):
        saved(again, 20)
        (tmp_path / "c" / "20" / checksums.NAME).write_text("{}")
        assert int(again().restore(at(0)).step) == 10
    assert names(tmp_path / "c") == ["10", "damaged-20", "damaged-20.1"]


# What fails


class Full:
    """Saves fail while `full` (at the write, or before it by the free space), as on a full disk."""

    def __init__(self, monkeypatch, how: str):
        self.full, write, usage = True, checksums.write, shutil.disk_usage

        def written(directory, facts):
            if self.full and how == "write":
                raise ValueError(
                    f"RESOURCE_EXHAUSTED: Failed writing {directory}: No space left on device [{'x' * 9999}]"
                )
            return write(directory, facts)

        def free(path):
            return type("usage", (), {"free": 10})() if self.full and how == "free" else usage(path)

        monkeypatch.setattr(checksums, "write", written)
        monkeypatch.setattr(shutil, "disk_usage", free)


@pytest.mark.parametrize("how", ["write", "free"])
def test_a_full_disk_is_said_and_tried_again(how, opened, tmp_path, monkeypatch):
    said, again = opened
    checkpointer = again()
    checkpointer.save(1, at(1))
    checkpointer.wait()
    disk, clock = Full(monkeypatch, how), [1000.0]
    monkeypatch.setattr(cp.time, "monotonic", lambda: clock[0])
    checkpointer.save(2, at(2))
    checkpointer.wait()
    (line,) = said
    assert line.startswith("ERROR: ") and "step 2 is not saved (no space left on the device" in line
    assert "the last good checkpoint is step 1" in line and "next try is in 10 s" in line and len(line) < 400
    assert names(tmp_path / "c") == ["1"]
    assert not checkpointer.due()
    clock[0] += 11
    assert checkpointer.due()
    checkpointer.save(3, at(3))
    checkpointer.wait()
    assert "next try is in 20 s" in said[1]
    clock[0] += 21
    disk.full = False
    assert checkpointer.due()
    checkpointer.save(4, at(4))
    checkpointer.wait()
    assert not checkpointer.due() and len(said) == 2
    assert names(tmp_path / "c") == ["1", "4"]
    assert int(again().restore(at(0)).step) == 4


def test_a_failure_is_said_within_a_step(opened, monkeypatch):
    said, again = opened
    checkpointer = again()
    Full(monkeypatch, "write")
    checkpointer.save(2, at(2))
    checkpointer._thread.join()
    assert said == []
    checkpointer.check()
    assert len(said) == 1


def test_a_run_whose_last_save_fails_three_times_says_so(opened, tmp_path, monkeypatch):
    _, again = opened
    checkpointer = again()
    checkpointer.save(1, at(1))
    checkpointer.wait()
    disk, waited, tries = Full(monkeypatch, "write"), [], []

    def save():
        tries.append(2)
        checkpointer.save(2, at(2))

    monkeypatch.setattr(cp.time, "sleep", waited.append)
    save()
    with pytest.raises(cp.NotSaved, match=r"3 times.*last good checkpoint is step 1"):
        checkpointer.settle(save)
    assert tries == [2, 2, 2] and waited == list(cp.WAITS)
    monkeypatch.setattr(cp.time, "sleep", lambda _: setattr(disk, "full", False))
    checkpointer.settle(save)
    assert names(tmp_path / "c") == ["1", "2"]


# Sums of leaves


def test_a_leaf_has_one_sum_on_every_mesh_and_on_the_host():
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
            split = {k: jax.P("fsdp") if np.size(x) > 8 else jax.P() for k, x in values.items()}
            here = jax.sharding.get_mesh()
            found.append(
                checksums.of_leaves(
                    {k: sh.put(x, jax.NamedSharding(here, split[k])) for k, x in values.items()}
                )
            )
    assert found[0] == found[1] == found[2]
    assert {k: checksums.of_array(np.asarray(x)) for k, x in values.items()} == {
        k: x["sum"] for k, x in found[0].items()
    }


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


def test_a_manifest_whose_bytes_changed_is_not_believed(opened, tmp_path):
    _, again = opened
    saved(again)
    path = tmp_path / "c" / "10" / checksums.NAME
    content = path.read_bytes()
    assert json.loads(content)["step"] == 10
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 0x20
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="bytes have changed"):
            checksums.read(path.parent)
    path.write_bytes(content)
    assert checksums.problems(path.parent) == []


def test_all_of_a_train_state_is_in_the_manifest(tmp_path):
    with on_mesh(1, 4, 2):
        state = tiny.make_state(optim.make(tiny.OPTIM, 10), ("image_head",))
        checkpointer = cp.Checkpointer(tmp_path / "m")
        checkpointer.save(0, state)
        checkpointer.close()
        manifest = checksums.read(tmp_path / "m" / "0")
        for name, x in checksums.paths(cp.leaves(state)):
            told = manifest["leaves"][name]
            assert (told["shape"], told["dtype"]) == (list(x.shape), str(x.dtype))
            assert told["sum"] == checksums.of_array(np.asarray(x))
        assert not re.search("finite", json.dumps(manifest["leaves"]))
    files = {
        str(p.relative_to(tmp_path / "m" / "0")) for p in (tmp_path / "m" / "0").rglob("*") if p.is_file()
    }
    assert manifest["files"].keys() == files - {checksums.NAME}
    assert all(
        os.path.getsize(tmp_path / "m" / "0" / n) == size for n, (size, _) in manifest["files"].items()
    )
