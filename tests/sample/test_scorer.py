"""Scores by a function of the user's."""

import json

import numpy as np
import pytest
from support.labelled import CAPTIONS, bad, labelling, photos, records, run

from janus_jax.common.exit_codes import UsageError
from janus_jax.sample import scorer


def lengths(pictures, captions):
    assert all(picture.mode == "RGB" and picture.size == (16, 16) for picture in pictures)
    return np.array([len(caption) for caption in captions], np.float32)


def scored(job, function):
    read = scorer.caption_reader(job.source)
    run(job, read, lambda some: scorer.scored_by(function, some))
    return [record["new"] for record in records(job)]


def test_pictures_and_captions_go_in_and_numbers_come_out(tmp_path):
    line = photos(tmp_path, 3)
    with open(tmp_path / "captions.jsonl", "a") as out:
        out.write("\n" + json.dumps({"image": "0.png", "captions": ["ab", "abcd"]}))
    found = scored(labelling(line, tmp_path / "out"), lengths)
    assert found == [*(len(caption) for caption in CAPTIONS[:3]), 3.0]


def test_what_is_no_finite_number_is_told(tmp_path):
    line = photos(tmp_path, 4)
    job = labelling(line, tmp_path / "out")
    assert scored(job, lambda pictures, captions: [1, float("nan"), 2, float("inf")]) == [1.0, 2.0]
    assert [(one["record"], one["cause"]) for one in bad(job)] == [
        (1, "no number"),
        (3, "no number"),
    ]
    for wrong in (lambda p, c: [1], lambda p, c: None, lambda p, c: ["a"] * 4, lambda p, c: 3.0):
        with pytest.raises(UsageError, match="give a number each"):
            scored(labelling(line, tmp_path / "wrong"), wrong)


def test_a_function_is_found_by_name_also_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "own_aesthetics.py").write_text("def of(pictures, captions): ...\nnumber = 3\n")
    monkeypatch.chdir(tmp_path)
    assert scorer.scorer_of("own_aesthetics:of").__name__ == "of"
    for name, why in (
        ("own_aesthetics", "give module:function"),
        ("own_aesthetics:gone", "has no attribute 'gone'"),
        ("no_such_module:of", "No module named"),
        ("own_aesthetics:number", "is a int, needs a function"),
    ):
        with pytest.raises(UsageError, match=why):
            scorer.scorer_of(name)
