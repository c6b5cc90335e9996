"""Which records a survey reads, and what it keeps of those that cannot be used."""

import json

import numpy as np

from janus_jax.data.sources import RecordError
from janus_jax.data.tools import survey


def test_a_sample_is_drawn_over_the_whole_set():
    assert survey.sample(10, 0).tolist() == survey.sample(10, 10).tolist() == list(range(10))
    drawn = survey.sample(100_000, 500)
    assert len(set(drawn.tolist())) == 500 and (np.diff(drawn) > 0).all()
    assert drawn.min() < 2000 and drawn.max() > 98_000


def test_a_bad_record_keeps_its_cause():
    class Source:
        def where(self, i):
            return f"a.json:{i}"

    line = survey.bad(RecordError("blank text", "is blank"), Source(), np.int64(3))
    assert json.dumps(line) and line["cause"] == "blank text"
    assert survey.bad(ValueError("odd"), Source(), 3)["cause"] == "cannot be encoded"
