"""Which module scores a run."""

import json
import types

from PIL import Image
from support import tiny

from janus_jax.eval import run
from janus_jax.eval.run import chosen

PICTURES = types.SimpleNamespace()  # of no world that can be read back
OTHER = types.SimpleNamespace(scored_by="chess")


def test_data_sets_of_one_world_are_scored_by_it():
    assert chosen(tiny.sources()) == "shapes"


def test_data_sets_of_no_world_are_scored_by_samples():
    assert chosen({"photos": PICTURES, "more": PICTURES}) == "samples"
    assert chosen({}) == "samples"


def test_data_sets_of_two_worlds_fall_back_to_samples():
    assert chosen({**tiny.sources(), "other": OTHER}) == "samples"
    assert chosen({**tiny.sources(), "photos": PICTURES}) == "samples"


def test_scores_that_differ_keep_the_earlier_ones(tmp_path, monkeypatch):
    said = []

    def score(value: int):
        sheet = Image.new("RGB", (4, 4), (value, 0, 0))
        report = types.SimpleNamespace(report=lambda *_: ("a table", {"score": value}, sheet))
        monkeypatch.setattr(run.importlib, "import_module", lambda name: report)
        monkeypatch.setattr(run, "load", lambda weights: (None, None))
        datasets = types.SimpleNamespace(datasets={})
        experiment = types.SimpleNamespace(data=datasets, seed=0)
        run.evaluate(experiment, {}, "w", tmp_path / "out", said.append, None)

    for value in (1, 1, 2):
        score(value)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"results.json", "results.1.json", "pictures.png", "pictures.1.png"}
    assert json.loads((tmp_path / "out" / "results.json").read_text("utf-8")) == {"score": 2}
    assert "the earlier results.json is kept as results.1.json" in said[-1]
    assert "kept" not in said[-3]
