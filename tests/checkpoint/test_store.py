"""Checkpoints on the disk: named when whole, out of sight before they are deleted, the damaged ones
put aside."""

import errno
import os

from support.toy import Counting, names, save_one, state_at

from janus_jax.checkpoint import checksums, store


def test_the_last_ones_stay_and_those_of_every_so_many_steps(opened, tmp_path):
    _, again = opened
    checkpointer = again(keep=2, keep_every=20)
    for step in (0, 10, 20, 30, 40, 50, 60, 70):
        checkpointer.save(step, state_at(step))
    checkpointer.close()
    assert names(tmp_path / "c") == sorted(map(str, (0, 20, 40, 60, 70)))


def test_what_is_deleted_is_out_of_sight_first(opened, tmp_path, monkeypatch):
    """A run that is killed in the midst of a deletion leaves no half of a checkpoint; the next one
    tidies up."""
    _, again = opened
    checkpointer, seen = again(keep=1), []
    monkeypatch.setattr(
        store.shutil, "rmtree", lambda path, **_: seen.append(path.name)
    )  # killed before the first file
    for step in (0, 10, 20):
        checkpointer.save(step, state_at(step))
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
    checkpointer.save(5, state_at(5), Counting())
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

    monkeypatch.setattr(store.pathlib.Path, "rename", stuck)
    for step in (0, 10, 20):
        checkpointer.save(step, state_at(step))
    checkpointer.wait()
    assert names(tmp_path / "c") == ["0", "20"]
    assert said and all("0 cannot be deleted (Device or resource busy)" in line for line in said)
    assert not checkpointer.due()


def test_what_stays_for_ever_keeps_its_name(opened, tmp_path, monkeypatch):
    _, again = opened
    monkeypatch.setattr(store.shutil, "rmtree", lambda *_, **__: None)
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
    assert again().restore(state_at(0)) is None
    assert names(tmp_path / "c") == ["notes"]


def test_a_second_damaged_one_of_a_step_does_not_replace_the_first(opened, tmp_path):
    _, again = opened
    save_one(again, 10)
    for _ in range(2):
        save_one(again, 20)
        (tmp_path / "c" / "20" / checksums.NAME).write_text("{}")
        assert int(again().restore(state_at(0)).step) == 10
    assert names(tmp_path / "c") == ["10", "damaged-20", "damaged-20.1"]
