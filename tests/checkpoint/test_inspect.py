"""What is found in a directory of checkpoints, without an array: soundness at both depths, the run,
the position."""

import errno
import json
import pathlib

import jax
import pytest
from support.damaged import DAMAGE, cut, flip
from support.toy import names, save_one, state_at, toy_state

from janus_jax.checkpoint import checksums, inspect


def test_a_file_system_that_refuses_is_no_damage(opened, tmp_path, monkeypatch):
    _, again = opened
    save_one(again, 10)
    save_one(again, 20)

    def refuses(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(checksums, "_sum", refuses)
    with pytest.raises(
        inspect.CheckpointsUnreadable, match=r"20.*Permission denied; nothing was changed"
    ) as error:
        again().restore(state_at(0))
    assert not isinstance(error.value, inspect.CheckpointsDamaged)
    assert names(tmp_path / "c") == ["10", "20"]


@pytest.fixture
def stage(tmp_path) -> pathlib.Path:
    """A work directory's stage with checkpoints of steps 3 and 4 of the toy's shapes, and no arrays
    to sum."""
    (tmp_path / "run").write_text("abc")
    leaves = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype)}
        for name, x in checksums.paths(shapes())
    }
    for step in (3, 4):
        checkpoint = tmp_path / "checkpoints" / "only" / str(step)
        (checkpoint / "data").mkdir(parents=True)
        (checkpoint / "state").mkdir()
        (checkpoint / "state" / "arrays").write_bytes(bytes(20_000))
        (checkpoint / inspect.POSITION).write_text(json.dumps({"step": step}))
        checksums.write(checkpoint, {"step": step, "run": "abc", "leaves": leaves})
    return tmp_path / "checkpoints" / "only"


def shapes(width: int = 4) -> dict:
    return inspect.leaves(jax.eval_shape(lambda: toy_state(width)))


def inspected(stage: pathlib.Path, width: int = 4) -> inspect.StageProgress:
    return inspect.inspect_stage(stage.parents[1], stage.name, shapes(width))


def test_steps_are_in_order_and_of_a_directory_that_is_not_there_none(stage):
    (stage / "20").mkdir()
    (stage / "damaged-5").mkdir()
    assert inspect.steps(stage) == [3, 4, 20] and inspect.steps(stage / "nowhere") == []


def test_a_sound_stage_goes_on_from_its_latest(stage):
    progress = inspected(stage)
    assert (progress.step, progress.held, progress.position) == (4, 2, {"step": 4})
    assert progress.begun and not progress.done
    assert progress.problems == progress.lost == progress.warnings == []


def test_a_stage_without_checkpoints_begins_and_one_with_weights_is_done(tmp_path):
    begins = inspect.inspect_stage(tmp_path, "only", {})
    assert begins == inspect.StageProgress() and not begins.begun
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "model.safetensors").touch()
    assert inspect.inspect_stage(tmp_path, "only", {}).done


@pytest.mark.parametrize("hurt", DAMAGE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("deep", [True, False])
def test_damage_is_found_at_both_depths_but_changed_bytes_only_where_they_are_read(
    hurt, deep, stage, monkeypatch
):
    monkeypatch.setattr(checksums, "SMALL", 10_000)
    file = hurt(stage / "4")
    found = inspect.damage(stage / "4", deep)
    name = file.relative_to(stage / "4").as_posix()
    if hurt is flip and not deep:
        assert found == []
    else:
        assert found and all(line.startswith(f"{name}: ") for line in found)
        assert DAMAGE[hurt] in found[0]


@pytest.mark.parametrize("rotten", ['{"step": 5}', '{"step": 4)'])
def test_the_position_in_the_data_is_summed_at_any_depth(rotten, stage):
    """Of the same size, so that only its sum tells; as JSON it may be sound or not."""
    (stage / "4" / inspect.POSITION).write_text(rotten)
    for deep in (True, False):
        (line,) = inspect.damage(stage / "4", deep)
        assert line.startswith("data/metadata: its bytes have changed")
    assert inspected(stage).step == 3 and inspected(stage).held == 1


def test_damaged_ones_are_passed_over_until_none_is_left(stage):
    cut(stage / "4")
    assert inspect.latest_sound(stage)[0] == inspected(stage).step == 3
    assert (
        "step 4: state/arrays: has 19999 bytes, 20000 were written" in inspected(stage).warnings[0]
    )
    cut(stage / "3")
    with pytest.raises(inspect.CheckpointsDamaged, match="every checkpoint is damaged") as error:
        inspect.latest_sound(stage)
    (lost,) = inspected(stage).lost
    assert lost == str(error.value) and "step 4: " in lost and "step 3: " in lost
    assert not inspected(stage).begun


def test_what_is_known_to_be_damaged_is_not_looked_at_again(stage):
    looked = []
    look = lambda path: looked.append(path.name) or []
    assert inspect.latest_sound(stage, look, {4: ["read otherwise"]}) == (
        3,
        {4: ["read otherwise"]},
    )
    assert looked == ["3"]


def test_an_earlier_sound_one_is_found_beside_one_that_was_put_aside(stage):
    (stage / "4").rename(stage / "damaged-4")
    assert inspect.earlier_sound(stage / "damaged-4") == stage / "3"
    flip(stage / "3")
    assert inspect.earlier_sound(stage / "damaged-4") is None


def test_another_run_and_another_model_are_told(stage):
    (stage.parents[1] / "run").write_text("xyz")
    problems = "\n".join(inspected(stage, width=5).problems)
    assert "only/4 is a checkpoint of run abc, and this work directory is of run xyz" in problems
    assert (
        "trainable.flame.kernel is float32 (4, 4) in the checkpoint, float32 (5, 5) here"
        in problems
    )


@pytest.mark.parametrize("left", ["", "\0" * 16, None])
def test_the_run_that_a_crash_took_from_its_file_is_that_of_all_checkpoints(left, stage):
    file = stage.parents[1] / "run"
    file.unlink() if left is None else file.write_text(left)
    assert inspect.known_run(stage.parents[1]) == "abc"
    manifest = checksums.read_manifest(stage / "3")
    checksums.write(stage / "3", {"run": "xyz", "leaves": manifest["leaves"]})
    assert inspect.known_run(stage.parents[1]) == ""


def test_a_stage_on_a_file_system_that_refuses_is_lost_but_not_damaged(stage, monkeypatch):
    def refuses(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(checksums, "read_manifest", refuses)
    (line,) = inspected(stage).lost
    assert "Permission denied; nothing was changed" in line and "damaged" not in line
