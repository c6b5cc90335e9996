"""Files that no record of a data set reads."""

import base64
import dataclasses
import json

from support.formats import flat, json_lines, photo, tars

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.tools import unread


def of(path, kind="generation", **options):
    return unread.unread([open_dataset(Dataset(kind, str(path), **options), 24, 0)])


def test_files_that_no_record_reads_are_named_by_folder(tmp_path):
    (tmp_path / "a").mkdir()
    path = json_lines(tmp_path / "a", 3)
    pictures = str(tmp_path / "a")
    assert of(path, images=pictures) == {}
    (tmp_path / "a" / "4.jpg").write_bytes(photo(4))
    (tmp_path / "a" / "list.csv").write_text("x")
    left = of(path, images=pictures)
    assert left == {pictures: ["4.jpg", "list.csv"]}
    assert unread.lines(left) == [
        f"no record reads, in {pictures}: 1 .jpg (4.jpg), 1 .csv (list.csv)"
    ]
    assert of(path) == {}  # a file alone asks for no folder
    (tmp_path / "a" / "metadata.jsonl").write_text(json.dumps({"file_name": "1.jpg", "text": "x"}))
    left = of(tmp_path / "a")[pictures]
    assert left == ["0.jpg", "2.jpg", "4.jpg", "data.jsonl", "list.csv"]


def test_records_that_hold_their_pictures_read_their_shards(tmp_path):
    for name in ("tars", "flat"):
        (tmp_path / name).mkdir()
    assert of(tars(tmp_path / "tars", 4)) == {} and of(flat(tmp_path / "flat", 2)) == {}
    (tmp_path / "tars" / "README.md").write_text("x")
    assert of(tmp_path / "tars") == {str(tmp_path / "tars"): ["README.md"]}


def test_what_one_data_set_or_its_held_out_records_read_is_unread_by_none(tmp_path):
    (tmp_path / "pictures").mkdir()
    for k in range(4):
        (tmp_path / "pictures" / f"{k}.jpg").write_bytes(photo(k))
    for name, k in (("train", 0), ("val", 1), ("others", 2)):
        record = {"image": f"{k}.jpg", "caption": "x"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
    pictures = str(tmp_path / "pictures")
    line = Dataset("generation", str(tmp_path / "train.jsonl"), images=pictures)
    others = Dataset("generation", str(tmp_path / "others.jsonl"), images=pictures)
    line = dataclasses.replace(line, holdout=str(tmp_path / "val.jsonl"))
    train, others = (open_dataset(one, 24, 0) for one in (line, others))
    assert unread.unread([train, train.held_out, others]) == {pictures: ["3.jpg"]}


def test_a_record_that_holds_its_picture_hides_no_files_that_others_name(tmp_path):
    uri = f"data:image/jpeg;base64,{base64.b64encode(photo(0)).decode()}"
    (tmp_path / "1.jpg").write_bytes(photo(1))
    records = [{"image": image, "caption": "x"} for image in (uri, "1.jpg")]
    (tmp_path / "a.json").write_text(json.dumps(records))
    assert of(tmp_path / "a.json", images=str(tmp_path)) == {}
