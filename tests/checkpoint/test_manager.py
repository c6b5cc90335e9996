"""Saving in the background and restoring: the same bits after a kill or damage, on any mesh;
failures are told."""

import functools
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.damaged import DAMAGE, cut, flip
from support.mesh import on_mesh
from support.toy import (
    Run,
    Stage,
    names,
    records,
    save_one,
    state_at,
    toy_batch,
    toy_state,
    toy_step,
)

from janus_jax.checkpoint import checksums, inspect
from janus_jax.checkpoint import manager as cp
from janus_jax.checkpoint.inspect import leaves
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.config.schema import Rows

FLAMES = ("understanding_adaptor", "generation_adaptor", "image_head")
RATIO = {"understanding": 1, "text": 1, "generation": 2}
TX = tiny.TX


@functools.cache
def step_fn():
    return tiny.make_step(TX)


def data():
    return tiny.batches(
        tiny.sources(), tiny.processor(), tiny.CONFIG, Rows(2, 128, 2, 2), RATIO, first=0.5, seed=3
    )


def train(state, iterator, steps: int, checkpointer=None):
    """(the state, the batches seen); saves after each step when there is a checkpointer."""
    seen = []
    for _ in range(steps):
        batch, _ = next(iterator)
        seen.append(batch)
        state, _ = step_fn()(state, tiny.put(batch))
        if checkpointer:
            checkpointer.save(int(state.step), state, iterator)
    return state, seen


# What is saved is what is restored


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, one_device):
    whole, batches_whole = train(tiny.make_state(TX, FLAMES), data(), 4)

    checkpointer = Checkpointer(tmp_path / "c")
    train(tiny.make_state(TX, FLAMES), data(), 2, checkpointer)
    checkpointer.close()

    again, iterator = Checkpointer(tmp_path / "c"), data()
    state = again.restore(tiny.make_state(TX, FLAMES, seed=9), iterator)
    again.close()
    assert int(state.step) == 2
    state, batches_after = train(state, iterator, 2)
    for got, want in zip(batches_after, batches_whole[2:]):
        tiny.same_bits(got, want)
    tiny.same_bits(leaves(state), leaves(whole))
    assert (
        tiny.numbers(batches_whole[0])["tokens"].tobytes() != batches_whole[2]["tokens"].tobytes()
    )


def test_an_iterator_under_way_goes_back_to_the_checkpoint(tmp_path, one_device):
    checkpointer, iterator = Checkpointer(tmp_path / "c"), data()
    state, _ = train(tiny.make_state(TX, FLAMES), iterator, 1)
    checkpointer.save(1, state, iterator)
    state, first = train(state, iterator, 3)
    state = checkpointer.restore(state, iterator)
    assert int(state.step) == 1
    state, second = train(state, iterator, 3)
    tiny.same_bits(second, first)
    checkpointer.close()


@pytest.mark.parametrize("where", ["in place", "on the devices"])
def test_saving_does_not_wait_and_still_saves_what_was_there(
    where, tmp_path, one_device, monkeypatch
):
    """The saved arrays are donated to the next steps before their sums are looked at."""
    if where == "on the devices":  # as on accelerators
        monkeypatch.setattr(checksums, "_is_in_host_memory", lambda x: False)
    checkpointer, iterator = Checkpointer(tmp_path / "c"), data()
    state, _ = train(tiny.make_state(TX, FLAMES), iterator, 1)
    want = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    trained, start = threading.Event(), checksums.start
    later = lambda sums: trained.wait() and sums()
    monkeypatch.setattr(checksums, "start", lambda tree: functools.partial(later, start(tree)))
    checkpointer.save(1, state, iterator)
    train(state, iterator, 5)
    assert "1" not in names(tmp_path / "c")
    trained.set()
    checkpointer.close()
    monkeypatch.undo()
    restored = Checkpointer(tmp_path / "c").restore(tiny.make_state(TX, FLAMES, seed=9))
    tiny.same_bits(leaves(restored), want)


def test_a_checkpoint_is_restored_on_another_mesh(tmp_path):
    with on_mesh(1, 4, 2):
        state = tiny.make_state(TX, FLAMES)
        noise = lambda x: x + jnp.float32(0.1) if x.ndim else x
        state = state.replace(opt_state=jax.tree.map(noise, state.opt_state), step=state.step + 7)
        checkpointer = Checkpointer(tmp_path / "c")
        checkpointer.save(7, state)
        checkpointer.close()
        want = tiny.numbers(leaves(state))
    with on_mesh(1, 8, 1):
        fresh = tiny.make_state(TX, FLAMES, seed=9)
        shardings = jax.tree.map(lambda x: x.sharding, leaves(fresh))
        restored = Checkpointer(tmp_path / "c").restore(fresh)
        tiny.same_bits(leaves(restored), want)
        assert jax.tree.map(lambda x: x.sharding, leaves(restored)) == shardings
        kernel = restored.params["transformer"]["blocks"]["gate"]["kernel"]
        assert kernel.sharding.mesh == jax.sharding.get_mesh() and not kernel.is_fully_replicated


def test_an_empty_directory_gives_none_and_keeps_the_state(tmp_path, one_device):
    state = toy_state()
    assert Checkpointer(tmp_path / "c").restore(state, None) is None
    assert not any(x.is_deleted() for x in jax.tree.leaves(leaves(state)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(directory, {step: numbers}) of a run of 20 steps with checkpoints at 10 and 20."""
    workdir = tmp_path_factory.mktemp("toy")
    with on_mesh():
        Run(workdir, stage=Stage(steps=20))()
        state, numbers = toy_state(), {}
        for step in range(1, 21):
            state, _ = toy_step()(state, toy_batch(step - 1))
            numbers[step] = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    return workdir, numbers


@pytest.fixture
def saved(trained, tmp_path, one_device):
    """(a copy of the directory of checkpoints, the numbers)."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoints", trained[1]


def test_a_sound_checkpoint_is_taken_without_a_word(saved):
    directory, numbers = saved
    said = []
    state = Checkpointer(directory, say=said.append).restore(toy_state())
    tiny.same_bits(leaves(state), numbers[20])
    assert said == []


def test_the_restored_state_takes_the_place_of_the_given_one(saved):
    given = toy_state()
    state = Checkpointer(saved[0]).restore(given)
    assert all(x.is_deleted() for x in jax.tree.leaves(leaves(given)))
    assert not any(x.is_deleted() for x in jax.tree.leaves(leaves(state)))


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, one_device):
    checkpointer, state = Checkpointer(tmp_path / "c"), toy_state()
    checkpointer.save(3, state)
    for part in ("trainable", "opt_state"):
        poisoned = jax.tree.map(
            lambda x: x.at[0].set(jnp.inf) if x.ndim else x, getattr(state, part)
        )
        checkpointer.save(4, state.replace(**{part: poisoned}))
        checkpointer._thread.join()
        with pytest.raises(FloatingPointError, match=rf"step 4: \d+ arrays .*{part}.*flame.*kept"):
            checkpointer.poll()
    checkpointer.close()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["3"]


# Damage


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, saved):
    directory, numbers = saved
    assert sorted(p.name for p in directory.iterdir()) == ["10", "20"]
    file = damage(directory / "20")
    said = []
    checkpointer = Checkpointer(directory, say=said.append)
    state = checkpointer.restore(toy_state())
    checkpointer.close()
    assert int(state.step) == 10
    tiny.same_bits(leaves(state), numbers[10])
    (line,) = said
    for word in (
        "DAMAGED",
        "from step 10",
        f"step 20: {file.relative_to(directory / '20')}",
        DAMAGE[damage],
    ):
        assert word in line
    assert sorted(p.name for p in directory.iterdir()) == ["10", "damaged-20"]


def test_damage_of_files_too_large_to_sum_first_shows_in_what_is_read(saved, monkeypatch):
    """Any changed byte is harmless, or leads to the step before and to the name of the file."""
    directory, numbers = saved
    monkeypatch.setattr(checksums, "SMALL", 0)
    harmed, rng = set(), np.random.default_rng(0)
    for file in [p for p in (directory / "20" / "state").rglob("*") if p.is_file()]:
        content, said = file.read_bytes(), []
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1
        file.write_bytes(changed)
        checkpointer = Checkpointer(directory, say=said.append)
        state = checkpointer.restore(toy_state())
        checkpointer.close()
        tiny.same_bits(leaves(state), numbers[int(state.step)])
        if int(state.step) == 10:
            name = file.relative_to(directory / "20")
            assert "sums its files" in said[0] and f"step 20: {name}: its bytes have" in said[1]
            harmed.add(name.parts[1])
            (directory / "damaged-20").rename(directory / "20")
        file.write_bytes(content)
    assert "d" in harmed or "ocdbt.process_0" in harmed
    tiny.same_bits(leaves(Checkpointer(directory).restore(toy_state())), numbers[20])


def test_a_run_goes_on_from_before_the_damage_to_the_same_bits(saved):
    directory, numbers = saved
    flip(directory / "20")
    run = Run(directory.parent, stage=Stage(steps=20))
    state = run()
    assert run.seen == [*range(10, 20)]
    tiny.same_bits(leaves(state), numbers[20])
    assert [r["step"] for r in records(directory.parent)] == [1, 7, 14, 20]
    again = Checkpointer(directory).restore(toy_state())
    tiny.same_bits(leaves(again), numbers[20])


def test_where_every_checkpoint_is_damaged_it_says_so_and_touches_nothing(saved):
    directory, _ = saved
    files = [flip(directory / "20"), cut(directory / "10")]
    with pytest.raises(inspect.CheckpointsDamaged) as error:
        Checkpointer(directory).restore(toy_state())
    assert all(file.name in str(error.value) for file in files) and str(directory) in str(
        error.value
    )
    assert "every checkpoint is damaged" in str(error.value)
    assert sorted(p.name for p in directory.iterdir()) == ["10", "20"]


def written_otherwise(directory):
    """The manifest of a sound checkpoint whose arrays it does not fit."""
    manifest = checksums.read_manifest(directory)
    manifest["leaves"]["trainable.flame.bias"]["sum"] = "00000bad"
    files = manifest.pop("files")
    manifest.pop("crc32")
    (directory / checksums.NAME).unlink()
    checksums.write(directory, manifest)
    assert checksums.read_manifest(directory)["files"].keys() == files.keys()


def test_arrays_that_were_read_otherwise_than_saved_are_damage(opened, tmp_path):
    """Files that are what was written, arrays that are not: memory, a codec, a reader with a
    bug."""
    said, again = opened
    save_one(again, 10)
    save_one(again, 20)
    written_otherwise(tmp_path / "c" / "20")
    state = again().restore(state_at(0))
    assert int(state.step) == 10
    assert "step 20: trainable.flame.bias was read otherwise than it was saved" in said[-1]
    assert "going on from step 10" in said[-1]
    assert names(tmp_path / "c") == ["10", "damaged-20"]


def test_where_no_array_is_what_was_saved_nothing_is_touched(opened, tmp_path):
    _, again = opened
    for step in (10, 20):
        save_one(again, step)
        written_otherwise(tmp_path / "c" / str(step))
    with pytest.raises(
        inspect.CheckpointsDamaged, match=r"(?s)every checkpoint is damaged.*step 20: .*step 10: "
    ):
        again().restore(state_at(0))
    assert names(tmp_path / "c") == ["10", "20"]


# What fits


def test_another_run_s_checkpoint_is_refused_with_what_differs(opened, tmp_path):
    _, again = opened
    save_one(again)
    other = again(run={"run": "there", "config": {"seed": 0, "model": {"width": 64}}})
    with pytest.raises(
        inspect.CheckpointError,
        match=r"of run here, and this work directory is of run there.*--workdir",
    ) as error:
        other.restore(state_at(0))
    assert str(error.value).endswith("\n  model.width: 32 -> 64")
    assert names(tmp_path / "c") == ["10"]


def test_every_leaf_that_differs_is_named_before_any_is_read(opened, monkeypatch):
    _, again = opened
    save_one(again)
    checkpointer, state = again(), state_at(0)
    monkeypatch.setattr(checkpointer._orbax, "restore", lambda *_, **__: pytest.fail("it read"))
    flame = dict(state.trainable["flame"])
    flame["kernel"] = flame["kernel"].T.reshape(-1)
    flame["bias"] = flame["bias"].astype(jnp.bfloat16)
    flame["extra"] = jnp.zeros((2, 3))
    frozen = {}
    with pytest.raises(
        inspect.CheckpointError, match="does not fit this config's train state"
    ) as error:
        checkpointer.restore(state.replace(trainable={"flame": flame}, frozen=frozen))
    text = str(error.value)
    kernel = tuple(state.trainable["flame"]["kernel"].shape)
    for line in (
        "missing: trainable.flame.extra, float32 (2, 3)",
        "unknown: frozen.snow.kernel",
        f"trainable.flame.kernel is float32 {kernel} in the checkpoint, float32 "
        f"({np.prod(kernel)},) here",
        "trainable.flame.bias is float32",
        "bfloat16",
    ):
        assert line in text
    assert not any(x.is_deleted() for x in jax.tree.leaves(flame)), "the state can still be used"


# What fails


class Full:
    """Saves fail while `full` (at the write, or before it by the free space), as on a full disk."""

    def __init__(self, monkeypatch, how: str):
        self.full, write, usage = True, checksums.write, shutil.disk_usage

        def written(directory, facts):
            if self.full and how == "write":
                raise ValueError(
                    f"RESOURCE_EXHAUSTED: Failed writing {directory}: No space left on device "
                    f"[{'x' * 9999}]"
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
    checkpointer.save(1, state_at(1))
    checkpointer.wait()
    disk, clock = Full(monkeypatch, how), [1000.0]
    monkeypatch.setattr(cp.time, "monotonic", lambda: clock[0])
    checkpointer.save(2, state_at(2))
    checkpointer.wait()
    (line,) = said
    assert line.startswith("ERROR: ") and "step 2 is not saved (no space left on the device" in line
    assert (
        "the last good checkpoint is step 1" in line
        and "next try is in 10 s" in line
        and len(line) < 400
    )
    assert names(tmp_path / "c") == ["1"]
    assert not checkpointer.due()
    clock[0] += 11
    assert checkpointer.due()
    checkpointer.save(3, state_at(3))
    checkpointer.wait()
    assert "next try is in 20 s" in said[1]
    clock[0] += 21
    disk.full = False
    assert checkpointer.due()
    checkpointer.save(4, state_at(4))
    checkpointer.wait()
    assert not checkpointer.due() and len(said) == 2
    assert names(tmp_path / "c") == ["1", "4"]
    assert int(again().restore(state_at(0)).step) == 4


def test_a_failure_is_said_within_a_step(opened, monkeypatch):
    said, again = opened
    checkpointer = again()
    Full(monkeypatch, "write")
    checkpointer.save(2, state_at(2))
    checkpointer._thread.join()
    assert said == []
    checkpointer.poll()
    assert len(said) == 1


def test_a_run_whose_last_save_fails_three_times_says_so(opened, tmp_path, monkeypatch):
    _, again = opened
    checkpointer = again()
    checkpointer.save(1, state_at(1))
    checkpointer.wait()
    disk, waited, tries = Full(monkeypatch, "write"), [], []

    def save():
        tries.append(2)
        checkpointer.save(2, state_at(2))

    monkeypatch.setattr(cp.time, "sleep", waited.append)
    save()
    with pytest.raises(inspect.NotSaved, match=r"3 times.*last good checkpoint is step 1"):
        checkpointer.wait_until_saved(save)
    assert tries == [2, 2, 2] and waited == list(cp.WAITS)
    monkeypatch.setattr(cp.time, "sleep", lambda _: setattr(disk, "full", False))
    checkpointer.wait_until_saved(save)
    assert names(tmp_path / "c") == ["1", "2"]
