"""What a detector learns from a batch, against numbers worked out by hand."""

import jax
import numpy as np
import pytest
from support.scenes import drawing, logits, scene

from janus_jax.data.scene_batches import labels
from janus_jax.data.toy import scenes
from janus_jax.model.guest import own_jax
from janus_jax.training import detector_loss

CELLS = 16


def batch(*some: scenes.Scene) -> dict:
    found = {name: np.stack([labels(one)[name] for one in some]) for name in labels(some[0])}
    return found | {"images": np.zeros((len(some), 64, 64, 3), np.uint8)}


@jax.jit
def _loss(found, of):
    return detector_loss.detector_loss(lambda images: found, of)


def loss(found: dict, of: dict) -> dict:
    with own_jax():
        total, terms = _loss(found, of)
    return {"loss": float(total)} | {name: float(x) for name, x in terms.items()}


def flat(centre: float) -> dict:
    """Logits of one picture that say the same of every cell."""
    at = lambda *kinds: np.zeros((1, CELLS, CELLS, *kinds), np.float32)
    ground = np.zeros((1, len(scenes.GROUNDS)), np.float32)
    return {"centre": at() + centre, "thing": at(48), "size": at(2), "ground": ground}


def test_a_hill_stands_on_each_centre_and_each_cell_knows_its_nearest_thing():
    of = batch(scene(drawing(0.28, 0.53, "bee"), drawing(0.9, 0.1, "tree", "large")), scene())
    with own_jax():
        found = {name: np.asarray(x) for name, x in detector_loss.targets(of, CELLS).items()}
    assert np.argwhere(found["centre"]).tolist() == [[0, 1, 14], [0, 8, 4]]
    heat = found["heat"]
    assert heat[0, 8, 4] == heat[0, 1, 14] == 1 and heat[1].max() == 0
    assert heat[0, 8, 5] == pytest.approx(np.exp(-1 / 1.28))
    assert heat[0, 9, 5] == pytest.approx(np.exp(-2 / 1.28))
    names = list(scenes.THINGS)
    assert found["thing"][0, 9, 2] == names.index("bee") and found["size"][0, 9, 2] == 0
    assert found["thing"][0, 0, 15] == names.index("tree") and found["size"][0, 0, 15] == 1


def test_the_loss_is_near_zero_where_all_is_right_and_tells_each_mistake():
    of = batch(scene(drawing(0.3, 0.5, "bee"), drawing(0.8, 0.2, "bee", "large"), ground="green"))
    with own_jax():
        right = logits(detector_loss.targets(of, CELLS), of["ground"])
    good = loss(right, of)
    assert good["things"] < 0.01 and good["sizes"] < 0.01 and good["ground"] < 0.01
    assert good["centres"] < 0.2 and good["thing_accuracy"] == 1
    for term, wrong in (("thing", "things"), ("size", "sizes"), ("ground", "ground")):
        found = loss(right | {term: -right[term]}, of)
        assert found[wrong] > 1 and found["loss"] > good["loss"] + 1
        assert {name for name in found if found[name] > good[name] + 1e-3} <= {wrong, "loss"}
    assert loss(right | {"thing": -right["thing"]}, of)["thing_accuracy"] == 0
    assert loss(right | {"centre": -right["centre"]}, of)["centres"] > 5


def test_the_heat_map_s_loss_is_centernet_s():
    of = batch(scene(drawing(0.3, 0.5)))
    p = 0.3
    with own_jax():
        heat = np.asarray(detector_loss.targets(of, CELLS)["heat"], np.float64)
    due = -((1 - p) ** 2) * np.log(p)
    due += (-((1 - heat[heat < 1]) ** 4) * p**2 * np.log(1 - p)).sum()
    found = loss(flat(np.log(p / (1 - p))), of)
    assert found["centres"] == pytest.approx(due, rel=1e-5)
    assert found["things"] == pytest.approx(np.log(48), rel=1e-5)
    assert found["sizes"] == pytest.approx(np.log(2), rel=1e-5)
    assert found["ground"] == pytest.approx(np.log(6), rel=1e-5)


def test_a_picture_without_things_has_a_loss():
    of = batch(scene())
    found = loss(flat(-9.0), of)
    assert found["centres"] < 0.01 and found["things"] == found["sizes"] == 0
    assert found["loss"] == pytest.approx(np.log(6), rel=1e-3)
