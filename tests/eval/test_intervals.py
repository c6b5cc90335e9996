"""How sure a score is."""

import math

import numpy as np

from janus_jax.eval.intervals import bootstrap, over_seeds, total


def share(sums):
    return {"right": sums.get("right", 0) / sums["asked"]}


def test_counts_of_units_add_up():
    assert total([{"a": 1, "b": 2}, {"a": 3}]) == {"a": 4, "b": 2}


def test_the_interval_of_a_share_is_that_of_its_binomial():
    units = [{"right": float(i % 4 == 0), "asked": 1} for i in range(400)]
    low, high = bootstrap(units, share)["right"]
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert np.allclose([low, high], [0.25 - half, 0.25 + half], atol=0.006)


def test_questions_of_one_picture_are_drawn_together():
    alone = [{"right": float(i % 2), "asked": 1} for i in range(200)]
    pairs = [{"right": 2 * float(i % 2), "asked": 2} for i in range(100)]
    width = lambda units: np.diff(bootstrap(units, share)["right"]).item()
    assert width(pairs) > 1.3 * width(alone)


def test_the_same_units_have_the_same_interval():
    units = [{"right": float(i % 3 == 0), "asked": 1} for i in range(50)]
    assert bootstrap(units, share) == bootstrap(units, share)
    assert bootstrap(units, share) != bootstrap(units, share, seed=1)


def test_a_group_that_a_draw_lacks_leaves_its_score_out_of_that_draw():
    units = [{"right/a": 1, "asked/a": 1}] + [{"right/b": 1, "asked/b": 1}] * 9

    def by_group(sums):
        return {g: sums[f"right/{g}"] / (sums[f"asked/{g}"] or math.nan) for g in "ab"}

    assert bootstrap(units, by_group) == {"a": (1.0, 1.0), "b": (1.0, 1.0)}


def test_the_interval_over_seeds_is_students():
    found = over_seeds([0.4, 0.5, 0.6, 0.5])
    assert np.allclose(found["interval"], (0.5 - 0.12992, 0.5 + 0.12992), atol=1e-4)
    assert over_seeds([0.4])["interval"] is None
