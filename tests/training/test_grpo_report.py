"""What a person sees of a step of GRPO."""

import numpy as np

from janus_jax.training import grpo_report
from janus_jax.training.grpo_batch import Group
from janus_jax.training.rewards import Asked


def group(draws: bool, outputs: list, rewards: list) -> Group:
    made = [(np.asarray(ids, np.int32), np.zeros(len(ids), np.float32)) for ids in outputs]
    values = np.asarray(rewards, np.float32)
    found = Group(Asked("a cross"), draws, np.zeros(3, np.int32), made, rewards=values)
    found.by_name = {"shapes": values, "http://host:80/a/b": values * 2}
    return found


def test_a_step_is_told_by_kind_and_reward():
    groups = [group(True, [[1], [2], [1], [3]], [0, 1, 0, 1]), group(False, [[1], [1]], [1, 1])]
    groups.append(group(True, [[1], [2]], [np.nan, 1]))
    clock = grpo_report.Clock()
    clock.lap("rollout")
    of_loss = {f"{n}_{k}": 0.25 for n in ("entropy", "kl", "clipped") for k in grpo_report.KINDS}
    values = grpo_report.metrics(of_loss, groups, np.array([0.0, 0.5]), clock)
    values["groups_failed"] = 1.0
    assert values["reward_drawing"] == 0.5 and values["reward_answering"] == 1
    assert values["reward_drawing/host:80.a.b"] == 1
    assert values["useful_groups_drawing"] == 1 and values["useful_groups_answering"] == 0
    assert values["distinct_drawing"] == 0.75 and values["decoder_difference_most"] == 0.5
    told = grpo_report.line("one", 7, values)
    assert told.startswith("one, step 7: drawing: reward 0.500 (shapes 0.500, host:80.a.b 1.000)")
    assert "1 groups left out, their reward failed" in told and "most 5.0e-01" in told
    assert "rollout 0.0" in told
    alone = grpo_report.metrics(of_loss, groups[:1], np.zeros(1), clock)
    assert "kl_drawing" in alone and not [name for name in alone if "answering" in name]


def test_a_policy_that_collapses_is_named():
    told = []
    watch = grpo_report.Collapse("one", 0.01, told.append).watch
    same, apart = group(True, [[1], [1]], [0, 1]), group(True, [[1], [2]], [0, 1])
    seen = {"distinct_drawing": 0.5, "entropy_drawing": 0.3}
    for step in range(grpo_report.LASTS):
        watch(step, [same, apart], seen)
    assert told == []
    for step in range(grpo_report.LASTS):
        watch(step, [same], seen)
    assert len(told) == 1 and "COLLAPSED" in told[0] and "one output a prompt" in told[0]
    for step in range(grpo_report.LASTS):
        watch(step, [apart], seen | {"entropy_drawing": 0.001})
    assert len(told) == 2 and "entropy_floor 0.01" in told[1]
    # Answers may all be right and alike.
    words = group(False, [[1], [1]], [1, 1])
    for step in range(grpo_report.LASTS):
        watch(step, [words], {"distinct_answering": 0.5, "entropy_answering": 0.2})
    assert len(told) == 2
