"""Which of several weights files counts, and what is said of those that do not."""

import json
import os
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from janus_jax.common.files import read_json
from janus_jax.weights import files, settings

INDEX = "model.safetensors.index.json"
TWO = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def folder(directory, *names):
    """A folder of safetensors whose one tensor tells the file; empty pickles; indices by their
    shards."""
    for name in names:
        if isinstance(name, tuple):
            weight_map = {f"in {shard}": shard for shard in name[1:]}
            (directory / name[0]).write_text(json.dumps({"weight_map": weight_map}))
        elif name.endswith(".safetensors"):
            save_file({f"in {name}": np.zeros(2, np.float32)}, directory / name)
        else:
            (directory / name).write_bytes(b"")
    return directory


@pytest.mark.parametrize(
    "there, read, passed",
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"], False),
        (["model.safetensors", ("pytorch_model.bin.index.json", "a.bin")], ["model.safetensors"], False),
        (["model.safetensors", (INDEX, *TWO)], ["model.safetensors"], True),
        (["model.safetensors", (INDEX, *TWO), *TWO], ["model.safetensors"], True),
        (["model.safetensors", (INDEX, "model.safetensors")], ["model.safetensors"], False),
        ([(INDEX, *TWO), *TWO, "extra.safetensors"], TWO, False),
        ([*TWO, "extra.safetensors"], TWO, False),
        ([(INDEX, "model-00001-of-00003.safetensors"), *TWO], TWO, True),
        ([(INDEX, *TWO), "other.safetensors"], ["other.safetensors"], True),
        (["other.safetensors", "optimizer.pt", "kept.safetensors"], ["other.safetensors"], False),
        (["other.safetensors", "adapter_model.safetensors"], ["other.safetensors"], False),
        ([*TWO, *(f"._{n}" for n in TWO), ("._" + INDEX, *TWO)], TWO, False),
        (["._a.safetensors", "other.safetensors"], ["other.safetensors"], False),
    ],
)  # fmt: skip
def test_safetensors_count_first_and_the_whole_file_before_shards(tmp_path, there, read, passed):
    found = files.find(folder(tmp_path, *there), allow_pickle=False)
    assert sorted(found.tensors) == [f"in {name}" for name in sorted(read)]
    assert [f"{INDEX} is not followed" in note for note in found.notes] == [True] * passed


def test_shards_beside_the_whole_file_are_told(tmp_path):
    found = files.find(folder(tmp_path, "model.safetensors", *TWO), False)
    assert list(found.tensors) == ["in model.safetensors"]
    assert found.notes == (
        f"{tmp_path / TWO[0]} and the rest of its set are not read: model.safetensors is",
    )


def test_the_usual_index_counts_before_another(tmp_path):
    first = ("consolidated.safetensors.index.json", "a.safetensors")
    found = files.find(folder(tmp_path, "a.safetensors", first, *TWO, (INDEX, *TWO)), False)
    assert sorted(found.tensors) == [f"in {name}" for name in TWO]
    assert [note.split(": ")[0] for note in found.notes] == [
        f"{tmp_path / first[0]} is not followed"
    ]
    (tmp_path / TWO[1]).unlink()
    found = files.find(tmp_path, False)
    assert list(found.tensors) == ["in a.safetensors"] and INDEX in found.notes[0]


@pytest.mark.parametrize(
    "there, says",
    [
        ([(INDEX, *TWO), TWO[0]], f"1 of 2 shards missing: {TWO[1]}"),
        ([(INDEX, *TWO)], "2 of 2 shards missing"),
        ([("pytorch_model.bin.index.json", "a.bin", "b.bin")], "a.bin, b.bin is a Python pickle.*allow_pickle=True"),
        ([(INDEX, *TWO), "pytorch_model.bin"], "pytorch_model.bin is a Python pickle"),
        ([*TWO, *(n.replace("model-", "old-") for n in TWO)], "2 sets of shards"),
        (["a.safetensors", "b.safetensors"], "several weights files"),
        ([(INDEX, "../a.safetensors")], "names files elsewhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_named(tmp_path, there, says):
    with pytest.raises(ValueError, match=says):
        files.find(folder(tmp_path, *there), allow_pickle=False)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ValueError, match=re.escape(INDEX)):
        files.find(tmp_path, allow_pickle=False)


def test_a_tensor_in_two_shards_is_a_problem(tmp_path):
    folder(tmp_path, *TWO)
    save_file({"a": np.zeros(2)}, tmp_path / TWO[0])
    save_file({"a": np.ones(2)}, tmp_path / TWO[1])
    assert files.find(tmp_path, allow_pickle=False).problems == [
        f"twice: a, in {TWO[1]} and in a file before it"
    ]


@pytest.mark.parametrize("name", ["model.safetensors", TWO[0]])
def test_a_folder_a_broken_link_or_a_pipe_in_the_files_place(tmp_path, name):
    (tmp_path / name).symlink_to("/nowhere/blob")
    with pytest.raises(ValueError, match=f"{name}: a link to /nowhere/blob, which is not there"):
        files.find(tmp_path, allow_pickle=False)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name}: a folder has the place of this file"):
        files.find(tmp_path, allow_pickle=False)
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=f"{name}: a pipe, socket or device has the place"):
            files.find(path, allow_pickle=False)


def test_a_settings_file_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"config.json: a pipe, socket or device has the place"):
        settings.read(tmp_path, "config.json")
    with pytest.raises(ValueError, match=r"config.json: cannot be read as JSON \(no regular file"):
        read_json(tmp_path / "config.json")
