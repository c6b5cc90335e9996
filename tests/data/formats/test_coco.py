"""COCO's caption files, and JSON files that are one object around their records."""

import gzip
import json

import pytest
from support.formats import photo, refusal

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset


@pytest.fixture
def whole(tmp_path):
    """What a captions file of COCO holds, in its own place beside the pictures."""
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations").mkdir()
    for k in range(3):
        (tmp_path / "train2017" / f"{k}.jpg").write_bytes(photo(k))
    images = [{"id": 7 + k, "file_name": f"{k}.jpg", "height": 64, "width": 96} for k in range(3)]
    said = [(9, "two"), (7, "one"), (9, "three")]
    annotations = [{"image_id": i, "id": n, "caption": c} for n, (i, c) in enumerate(said)]
    return {"info": {"year": 2017}, "images": images, "annotations": annotations}


@pytest.mark.parametrize("indent, suffix", [(None, ""), (1, ""), (None, ".gz")])
def test_captions_of_coco_are_those_of_its_pictures(tmp_path, whole, indent, suffix):
    """Not one record, whose images have "neither bytes nor path"."""
    path = tmp_path / "annotations" / f"captions_train2017.json{suffix}"
    data = json.dumps(whole, indent=indent).encode()
    path.write_bytes(gzip.compress(data) if suffix else data)
    source = open_dataset(Dataset("generation", str(path)), 24, 0)
    assert [source[i]["captions"] for i in range(len(source))] == [["one"], ["two", "three"]]
    assert source.picture_file(1) == str((tmp_path / "train2017" / "2.jpg").resolve())
    assert source.where(1) == f"{path.name}: image 9"
    moved = path.rename(tmp_path / f"mine.json{suffix}")
    assert "its pictures, such as 0.jpg, are not in" in refusal(moved)
    again = open_dataset(
        Dataset("generation", str(moved), images=str(tmp_path / "train2017")), 24, 0
    )
    assert len(again) == 2


def test_images_of_coco_without_an_id_are_told_and_not_left_out(tmp_path, whole):
    del whole["images"][1]["id"]
    whole["images"][2]["id"] = None
    (tmp_path / "a.json").write_text(json.dumps(whole))
    assert "2 of its images have no id, and by it an annotation names its image; give each one" in (
        refusal(tmp_path / "a.json")
    )


def test_objects_around_records_are_named_as_what_they_are(tmp_path, whole):
    def said(content):
        (tmp_path / "a.json").write_text(json.dumps(content))
        return refusal(tmp_path / "a.json")

    for annotation in whole["annotations"]:
        annotation["bbox"] = [0, 0, 1, 1]
        del annotation["caption"]
    assert "is COCO's, but no file of captions: its annotations have image_id, id, bbox" in said(
        whole
    )
    rows = {"version": 1, "data": [{"image": "0.jpg", "caption": "x"}]}
    assert "is one object, whose list 'data' holds 1 records (beside it: version)" in said(rows)


@pytest.mark.parametrize(
    "whole, why",
    [
        ({"0.jpg": "a cat", "1.jpg": "a dog"}, "with a field for each picture (0.jpg, 1.jpg)"),
        ({"0.jpg": ["a cat"]}, "with a field for each picture (0.jpg)"),
        ({"image": ["0.jpg", "1.jpg"], "caption": ["x", "y"]}, "each column (image, caption)"),
        ({"image": {"0": "0.jpg", "1": "1.jpg"}, "text": {"0": "x", "1": "y"}}, "df.to_json(path"),
    ],
)
def test_a_table_in_one_object_is_no_record_of_many_pictures(tmp_path, whole, why):
    (tmp_path / "a.json").write_text(json.dumps(whole))
    assert why in refusal(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps(whole, indent=1))
    assert "a.json: is neither a JSON list nor one record a line" in refusal(tmp_path / "a.json")
    assert "as with `jq -c . FILE > records.jsonl`" in refusal(tmp_path / "a.json")


def test_one_record_of_lists_is_no_table(tmp_path):
    (tmp_path / "0.jpg").write_bytes(photo(0))
    document = {"images": ["0.jpg", None], "texts": [None, "A cat."]}
    pairs = {"images": ["0.jpg", "0.jpg"], "conversation": [["What?", "x"], ["Who?", "y"]]}
    for record in (document, pairs):
        (tmp_path / "a.json").write_text(json.dumps(record))
        assert len(open_dataset(Dataset("understanding", str(tmp_path / "a.json")), 24, 0)) == 1

    two = {"images": ["a.jpg", "b.jpg"], "annotations": [], "question": "Same?", "answer": "No."}
    (tmp_path / "one.json").write_text(json.dumps(two))  # a record, and none of COCO's files
    source = open_dataset(Dataset("understanding", str(tmp_path / "one.json")), 24, 0)
    assert source[0]["messages"][1].content == ["No."]


def test_a_file_of_coco_is_no_record_beside_others_and_captions_belong_to_one_picture(
    tmp_path, whole
):
    """Behind another file it was one bad record."""
    (tmp_path / "lines.jsonl").write_text('{"image": "train2017/0.jpg", "caption": "x"}\n')
    (tmp_path / "mine.json").write_text(json.dumps(whole))
    assert "mine.json is one of COCO's files; give the paths of all" in refusal(
        tmp_path / "*.json*"
    )
    whole["images"][1]["id"] = 7
    (tmp_path / "mine.json").write_text(json.dumps(whole))
    assert "1 ids, such as 7, stand at several of its images, and whose" in refusal(
        tmp_path / "mine.json"
    )
