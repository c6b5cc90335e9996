"""What stands in a shard, whole or not at all."""

import json
import pathlib
import resource

import msgpack
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from support.planted import files, job, photos

from janus_jax.config.schema import Dataset
from janus_jax.data import catalog
from janus_jax.data.tools import survey, to_array_record


def test_shards_hold_the_fields_and_the_files_as_they_are_and_read_back(plain, tmp_path):
    one = job(plain, tmp_path / "out")
    manifest = to_array_record.convert(one, 1, 0.0)
    names = [f"data-{k:05d}-of-00004.array_record" for k in range(4)]
    assert sorted(files(one.out)) == sorted(["convert.json", "bad_records.jsonl", *names])
    assert manifest["written"] == 100 and manifest["bad"] == {} and manifest["complete"]
    reader = ArrayRecordReader(str(one.path(1)))
    assert "group_size:1," in reader.writer_options_string()
    fields = msgpack.unpackb(reader.read([0])[0])
    picture = pathlib.Path(plain.images, "25.jpg").read_bytes()
    assert fields == {"image": picture, "caption": "crop 25", "extra": {"number": 25}}
    back = catalog.open_dataset(Dataset("generation", str(one.out)), 384, 0)
    assert [back[i] for i in range(100)] == [one.source[i] for i in range(100)]
    assert np.array_equal(np.asarray(back.image(99)), np.asarray(one.source.image(99)))


@pytest.mark.parametrize("max_side", [0, 64])
def test_documents_and_class_folders_read_back(tmp_path, max_side):
    for name, photo in photos().items():
        (tmp_path / "classes" / name).mkdir(parents=True)
        photo.crop((0, 0, 100, 60)).save(tmp_path / "classes" / name / "a.png")
    records = [
        {
            "texts": ["before", None, "between", None],
            "images": [None, "rocket/a.png", None, "coffee/a.png"],
        },
        {"text": "one <image> only", "image": ["rocket/a.png"]},
        {
            "image": ["rocket/a.png", "coffee/a.png"],
            "question": "<image> or <image>?",
            "answer": "The first.",
        },
    ]
    (tmp_path / "documents.json").write_text(json.dumps(records))
    classes = str(tmp_path / "classes")
    for line, count in (
        (Dataset("understanding", str(tmp_path / "documents.json"), images=classes), [2, 1, 2]),
        (Dataset("generation", classes, prompt=("a photo of {caption}",)), [1] * 4),
    ):
        one = job(line, tmp_path / f"{line.kind}", 1, max_side)
        manifest = to_array_record.convert(one, 1, 0.0)
        assert manifest["written"] == len(count) and manifest["reencoded"] == (
            sum(count) if max_side else 0
        )
        back = catalog.open_dataset(Dataset(line.kind, str(one.out), prompt=line.prompt), 384, 0)
        for i, pictures in enumerate(count):
            assert (
                back[i] == one.source[i] and survey.count_pictures(line.kind, back[i]) == pictures
            )
            for k in range(pictures):
                now, before = back.image(i, k), one.source.image(i, k)
                assert now.size == ((64, 38) if max_side else before.size)
                near = before.resize(now.size, Image.Resampling.LANCZOS)
                assert np.abs(np.asarray(now, int) - np.asarray(near, int)).mean() < (
                    3 if max_side else 1e-9
                )


def test_larger_pictures_are_made_smaller_when_asked(plain, tmp_path):
    one = job(plain, tmp_path / "out", 1, max_side=100)
    manifest = to_array_record.convert(one, 1, 0.0)
    back = catalog.open_dataset(Dataset("generation", str(one.out)), 384, 0)
    before = [one.source.image(i).size for i in range(100)]
    large = [i for i, size in enumerate(before) if max(size) > 100]
    assert manifest["reencoded"] == len(large) == 39
    assert {max(back.image(i).size) for i in large} == {100}
    assert back.image(99).size == (100, round(60 * 100 / 139))
    assert back.picture_file(0) == pathlib.Path(plain.images, "0.jpg").read_bytes()


def test_a_full_disk_leaves_no_half_shard_and_the_same_command_goes_on(plain, tmp_path):
    """A limit on the size of files stands for the disk: the same refusal of the same system
    call."""
    whole = job(plain, tmp_path / "whole", 2)
    to_array_record.convert(whole, 1, 0.0)
    one = job(plain, tmp_path / "out", 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            OSError,
            match=r"cannot be written \(.*File too large.* GB are free .* complete shards are kept",
        ):
            to_array_record.convert(one, 1, 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(files(one.out)) == ["bad_records.jsonl", "convert.json"]
    to_array_record.convert(one, 1, 0.0)
    assert files(one.out) == files(whole.out)
