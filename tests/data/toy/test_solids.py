"""The solids' world: clouds are on the solids that their words name, and repeat."""

import numpy as np
import pytest

from janus_jax.config.schema import Dataset
from janus_jax.data import catalog
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import solids, solids_sources


@pytest.mark.parametrize("name", solids.NAMES)
def test_points_lie_on_their_solid(name):
    p = solids.surface(np.random.default_rng(0), name, 2000)
    assert p.shape == (2000, 3)
    out = np.hypot(p[:, 0], p[:, 1])
    z = p[:, 2]
    r = 0.5**0.5
    gaps = {
        "sphere": np.linalg.norm(p, axis=1) - 1,
        "cube": np.abs(p).max(1) - 3**-0.5,
        "cone": np.minimum(np.abs(z + r), np.abs(out - (r - z) / 2)),
        "cylinder": np.minimum(np.abs(np.abs(z) - r), np.abs(out - r)),
        "torus": np.hypot(out - 0.65, z) - 0.35,
    }
    np.testing.assert_allclose(gaps[name], 0, atol=1e-9)
    assert np.linalg.norm(p, axis=1).max() <= 1 + 1e-9
    assert np.abs(p[:, :2].mean(0)).max() < 0.06


def test_a_record_repeats_and_all_answers_come_equally_often():
    source = catalog.open_dataset(Dataset("understanding", "solids:"), 16, 3)
    asked = [source.asked(i) for i in range(600)]
    np.testing.assert_array_equal(asked[5][3], source[5]["senses"]["points"][0])
    assert source[5]["messages"][1].content == [asked[5][2]]
    for kind, chance in solids_sources.CHANCE.items():
        answers = [answer for k, _, answer, _ in asked if k == kind]
        counts = np.unique(answers, return_counts=True)[1] / len(answers)
        most = chance if kind != "larger" else 1 / 5  # of the names; of two each is asked for
        assert len(counts) == round(1 / most) and counts.max() < most + 0.09
    named = [(q.split("the ")[1].split(",")[0], a) for k, q, a, _ in asked if k == "larger"]
    assert 0.35 < np.mean([q.startswith(a) for q, a in named]) < 0.65


def test_the_larger_is_larger():
    source = solids_sources.SolidsUnderstanding(1)
    rng = source.rng(0)
    cloud = solids.cloud(rng, [("cube", 0.9), ("sphere", 0.4)])
    near = np.linalg.norm(cloud - cloud[-1], axis=1) < 0.8 + 0.2
    assert near.sum() < 0.3 * len(cloud)


def test_other_kinds_are_refused():
    with pytest.raises(SourceError, match="solids:: unknown for kind text"):
        catalog.open_dataset(Dataset("text", "solids:"), 16, 0)
