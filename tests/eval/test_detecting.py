"""A detector of scenes is read from its weights, and what its maps say becomes a scene."""

import numpy as np
import pytest
from support.scenes import drawing, in_words, logits, scene

from janus_jax.common.exit_codes import UsageError
from janus_jax.data.scene_batches import labels
from janus_jax.data.toy import scenes
from janus_jax.eval import detecting
from janus_jax.model.guest import own_jax
from janus_jax.training.detector_loss import targets
from janus_jax.training.tasks import detector as task
from janus_jax.weights.load import export


def maps(some: list[scenes.Scene], cells: int = 16) -> dict:
    batch = {name: np.stack([labels(one)[name] for one in some]) for name in labels(some[0])}
    with own_jax():
        return logits(targets(batch, cells), batch["ground"])


def test_the_maps_of_a_scene_are_read_as_that_scene():
    rng = np.random.default_rng(1)
    some = [
        scenes.random_scene(rng, makeup, held_out)
        for makeup in scenes.MAKEUPS
        for held_out in (False, True) * 3
    ]
    found = maps(some)
    for i, true in enumerate(some):
        read = detecting._scene({name: x[i] for name, x in found.items()})
        assert in_words(read) == in_words(true)
        assert len(read.drawings) == len(true.drawings)


def test_a_peak_below_the_threshold_is_nothing():
    found = {name: x[0] for name, x in maps([scene(drawing(0.5, 0.5))]).items()}
    sure = np.log(detecting.SURE / (1 - detecting.SURE))
    for peak, count in ((sure + 0.1, 1), (sure - 0.1, 0)):
        found["centre"] = np.where(found["centre"] > 5, peak, -9)
        assert len(detecting._scene(found).drawings) == count
        found["centre"][8, 8] = 9


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector") / "weights"
    with own_jax():
        params = task.init_random(0, None, ("detector",))
        export(folder, params)
    return folder, params


def test_pictures_are_read_in_batches_of_one_shape_whatever_their_number(weights, monkeypatch):
    monkeypatch.setattr(detecting, "BATCH", 4)
    found = detecting.SceneDetector(weights[0])
    pictures = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    assert found.read(pictures) == [one for p in pictures for one in found.read(p[None])]
    features = found.features()
    assert features.title == "detector Fréchet distance" and "FID" not in str(features)
    together = features.extract(list(pictures))
    assert together.shape == (6, 64) and together.std(0).max() > 0
    np.testing.assert_allclose(together[4:5], features.extract(pictures[4:5]), atol=1e-5)
    assert len(features.facts["weights_sha256"]) == 64
    with pytest.raises(UsageError, match=r"pictures of 12 pixels.* multiples of 8"):
        found.read(pictures[:, :12, :12])


def test_other_weights_are_refused_by_name(weights, tmp_path):
    with pytest.raises(UsageError, match="none: no weights of a detector of scenes"):
        detecting.SceneDetector(tmp_path / "none")
    params = {"detector": {name: x for name, x in weights[1]["detector"].items() if name != "up"}}
    with own_jax():
        export(tmp_path / "less", params)
    with pytest.raises(UsageError, match=r"missing: detector\.up\.kernel"):
        detecting.SceneDetector(tmp_path / "less")
