"""The solids asked about: with their cloud and blind, scored beside chance."""

import numpy as np
import pytest

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.toy.solids_sources import SolidsUnderstanding
from janus_jax.eval.understanding import solids


def test_questions_are_of_clouds_of_their_own_seed():
    records = solids.read("solids:12?seed=7", "", print)
    source = SolidsUnderstanding(7)
    for i, record in enumerate(records):
        kind, question, answer, cloud = source.asked(i)
        assert (record.category, record.question, record.answer) == (kind, question, answer)
        ((said),) = solids.ask(record, "points")
        np.testing.assert_array_equal(said["content"][0]["points"], cloud)
        assert solids.ask(record, "blind")[0]["content"] == said["content"][1:]


def test_scores_are_shares_by_kind_beside_chance():
    records = solids.read("solids:60", "", print)
    marks = [
        solids.mark(r, r.answer if r.category != "count" else "four", "points") for r in records
    ]
    sums = {}
    for counts in solids.tally(records, marks, "points"):
        sums = {k: sums.get(k, 0) + counts.get(k, 0) for k in {*sums, *counts}}
    assert solids.scores(sums, "points") == pytest.approx(
        {"which": 1, "count": 0, "larger": 1, "overall": 2 / 3}
    )
    assert solids.chance(records)["overall"] == pytest.approx((1 / 5 + 1 / 3 + 1 / 2) / 3)
    with pytest.raises(UsageError, match="no question"):
        solids.read("solids:0", "", print)
