"""Several paths in one line of a config."""

import pickle

import numpy as np
import pytest
from support.formats import caption, flat, json_lines, refusal, two_paths

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset


def test_paths_with_commas_are_one_data_set_each_with_its_own_pictures(tmp_path):
    line = Dataset("generation", two_paths(tmp_path, 6))
    source = open_dataset(line, 24, 0)
    assert [source[i]["captions"] for i in range(len(source))] == [[caption(k)] for k in range(6)]
    assert source.picture_file(3) == str((tmp_path / "more" / "0.jpg").resolve())
    assert source.where(3) == f"{tmp_path}/more/data.csv:2" and str(tmp_path) not in repr(source)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.image(4), source.image(4)) and copy.portable(5) == source.portable(5)
    again = open_dataset(line, 24, 0)
    assert again.fingerprint == source.fingerprint
    assert again.pictures_fingerprint == source.pictures_fingerprint
    turned = ",".join(reversed(line.path.split(",")))
    assert open_dataset(Dataset("generation", turned), 24, 0).fingerprint != source.fingerprint
    with pytest.raises(IndexError):
        source[6]


def test_what_is_wrong_with_several_paths_is_told_at_once(tmp_path):
    path = json_lines(tmp_path, 2)
    message = refusal(f"{path},{tmp_path}/no.csv,{tmp_path}/neither.jsonl")
    assert "no.csv: no such file" in message and "neither.jsonl: no such file" in message
    assert "holds the same records; leave one out" in refusal(f"{tmp_path}/*.jsonl,{path}")
    folder = f"{tmp_path}/d"
    (tmp_path / "d").mkdir()
    flat(tmp_path / "d", 2)
    assert f"{folder}/: {folder} holds the same records" in refusal(f"{folder},{folder}/")
    assert "nothing before or behind a comma" in refusal(f"{path},")
    assert "names a path twice" in refusal(f"{path},{path}")
    comma = path.rename(tmp_path / "a,b.jsonl")
    assert len(open_dataset(Dataset("generation", str(comma)), 24, 0)) == 2


def test_a_toy_beside_a_file_has_what_both_have(tmp_path):
    """`data check` asked the toy how it understands its records."""
    source = open_dataset(Dataset("generation", f"{json_lines(tmp_path, 2)},shapes:"), 24, 0)
    assert source[2]["captions"] and source.image(2).shape == (24, 24, 3)
    assert not hasattr(source, "understood") and not hasattr(
        pickle.loads(pickle.dumps(source)), "raw"
    )
