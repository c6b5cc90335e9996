"""What evaluations found, on the disk; and the best checkpoint, which stays."""

import pytest
from support.toy import state_at

from janus_jax.checkpoint import evaluated, inspect

FOUND = [
    {"step": 10, "validation_loss": 3.0, "score": 0.1},
    {"step": 20, "validation_loss": 1.0},
    {"step": 30, "validation_loss": 1.0, "score": 0.5},
    {"step": 40, "validation_loss": 2.0, "score": 0.5},
]


def test_a_loss_is_best_where_it_is_lowest_and_a_score_where_it_is_highest_the_first_of_several():
    assert evaluated.best_step(FOUND, "validation_loss") == 20
    assert evaluated.best_step(FOUND, "score") == 30
    assert evaluated.best_step(FOUND, "validation_loss", among=[10, 40]) == 40
    assert evaluated.best_step(FOUND, "other") is None
    assert evaluated.since_best(FOUND, "validation_loss") == 2
    assert evaluated.since_best(FOUND[:1], "validation_loss") == 0
    assert evaluated.since_best([], "validation_loss") == 0
    assert evaluated.since_best(FOUND, "score") == 1
    without = [*FOUND, {"step": 50}, {"step": 60}]  # a full disk, full devices
    assert evaluated.since_best(without, "score") == 1
    name = "validation_image_to_text_accuracy"  # of held-out records, and no loss
    assert evaluated.best_step([{"step": 1, name: 0.2}, {"step": 2, name: 0.9}], name) == 2


def test_what_is_kept_is_read_again_and_what_is_no_such_list_is_refused(tmp_path):
    assert evaluated.records(tmp_path) == []
    evaluated.keep(tmp_path, FOUND)
    assert evaluated.records(tmp_path) == FOUND
    (tmp_path / evaluated.FILE).write_text('{"step": 1}\nnothing\n')
    with pytest.raises(
        evaluated.EvaluationsError, match=r"evaluation\.jsonl: not what evaluations left"
    ):
        evaluated.records(tmp_path)


def test_the_best_checkpoint_stays_beside_the_latest(opened):
    _, again = opened
    checkpointer = again(keep=2)
    checkpointer.store.best = lambda steps: evaluated.best_step(FOUND, "validation_loss", steps)
    for step in (10, 20, 30, 40, 50, 60):
        checkpointer.save(step, state_at(step))
        checkpointer.wait()
    assert inspect.steps(checkpointer.directory) == [20, 50, 60]
