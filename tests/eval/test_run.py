"""Which benchmark scores a run, and what it leaves."""

import json
import types

import pytest
from PIL import Image
from support import tiny

from janus_jax.config.schema import Dataset, Evaluation
from janus_jax.data import catalog
from janus_jax.eval import run
from janus_jax.eval.run import chosen

PICTURES = types.SimpleNamespace()  # of no world that can be read back
OTHER = types.SimpleNamespace(scored_by="chess")


def test_data_sets_of_one_world_are_scored_by_it():
    assert chosen(tiny.sources()) == "shapes"


def test_data_sets_of_no_world_are_scored_by_their_own_records():
    assert chosen({"photos": PICTURES, "more": PICTURES}) == run.RECORDS
    assert chosen({}) == run.RECORDS


def test_data_sets_of_two_worlds_fall_back_to_their_own_records():
    assert chosen({**tiny.sources(), "other": OTHER}) == run.RECORDS
    assert chosen({**tiny.sources(), "photos": PICTURES}) == run.RECORDS


@pytest.fixture
def experiment():
    lines = {
        "questions": Dataset(kind="understanding", path="shapes:"),
        "scenes": Dataset(kind="generation", path="shapes:"),
    }
    return types.SimpleNamespace(data=types.SimpleNamespace(datasets=lines), seed=0)


@pytest.mark.slow
def test_a_run_keeps_its_earlier_scores_beside_the_later(experiment, tmp_path):
    lines = experiment.data.datasets
    sources = {name: catalog.open_dataset(line, 24, 0) for name, line in lines.items()}
    said = []
    for temperature in (0.5, 0.5, 9.0):  # the last draws other pictures, and worse
        settings = Evaluation(count=1, cfg_scale=1.5, temperature=temperature)
        run.evaluate(experiment, sources, "quickstart", tmp_path, said.append, settings)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {
        "evaluation", "results.json", "results.1.json", "pictures.png", "pictures.1.png",
    }  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert set(results) == {"drawing", "answering", "tokenizer"}
    assert results["drawing"]["overall"][2] == 6 and results["answering"]["overall"][2] == 20
    assert results["answering"]["overall"][0] > 0.6  # of a chance of 0.32
    with Image.open(tmp_path / "pictures.png") as picture:
        assert min(picture.size) > 100
    made = {p.name.rsplit("-", 1)[0] for p in (tmp_path / "evaluation").iterdir()}
    assert made == {"shapes-generation", "shapes-understanding"}
    assert len(list((tmp_path / "evaluation").iterdir())) == 3  # the answers are of both
    assert "the earlier results.json is kept as results.1.json" in said[-1]
    assert "kept as" not in said[-3]
