"""A run is warned where it does not write and read as the weights were trained that it begins with."""

import json
import shutil

import pytest
from support import tiny
from support.rehearsal import TINY, rehearsed

from janus_jax.config import read
from janus_jax.training.preflight_processor import unlike_weights
from janus_jax.weights.source import open_source

OTHER = {  # what stands beside weights, and what is said of it
    "user": ("Human", "user is 'Human' there, 'User' here; give the config's template theirs"),
    "system": ("Be brief.", "system is 'Be brief.' there"),
    "image_mean": ([0.48, 0.46, 0.41], "image_mean is (0.48, 0.46, 0.41) there, (0.5, 0.5, 0.5) here"),
    "background": ([122, 116, 104], "background is (122, 116, 104) there, (127, 127, 127) here"),
    "context": (2048, "context is 2048 there, 4096 here"),
    "cfg_scale": (3.0, "cfg_scale is 3.0 there, 5.0 here; evaluation.cfg_scale"),
}  # fmt: skip


@pytest.mark.usefixtures("traced_once", "weights")
def test_what_the_config_repeats_otherwise_than_the_weights_know_is_told(files, tmp_path, capsys):
    """Template, mean, background and the like; nothing where they agree, or nothing lies beside."""
    flags = {"tokenizer": str(files / "weights")}
    experiment = read.read(TINY, flags)[0]
    same = {"only": {"weights": open_source(files / "weights")}}
    assert unlike_weights(experiment, tiny.processor(), same) == []
    there = tmp_path / "weights"
    shutil.copytree(files / "weights", there)
    fields = json.loads((there / "processor.json").read_text())
    (there / "processor.json").write_text(
        json.dumps(fields | {name: value for name, (value, _) in OTHER.items()})
    )
    out = rehearsed(capsys, TINY, tmp_path / "run", flags | {"stages.only.init": str(there)})
    assert f"WARNING: stages.only.init: {there} knows otherwise than this run:" in out
    for _, said in OTHER.values():
        assert said in out
    assert "temperature" not in out and "the run can begin" in out
    (there / "processor.json").unlink()
    bare = {"only": {"weights": open_source(there)}}
    assert unlike_weights(experiment, tiny.processor(), bare) == []
