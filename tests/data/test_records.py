"""Records over a reader: pictures in and outside them, what is left out, what is read once."""

import base64
import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support.formats import (
    caption,
    flat,
    jpeg,
    json_lines,
    photo,
    refusal,
    refused,
)

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.image_files import ImageError
from janus_jax.data.messages import Turn, laid_out
from janus_jax.data.sources import RecordError

PNG = io.BytesIO()
Image.new("RGB", (3, 4), (9, 8, 7)).save(PNG, "PNG")
PNG = PNG.getvalue()


def asked(content, answer):
    """Two turns; each picture of the question but one at its end is followed by a line break."""
    content = laid_out(content) if isinstance(content, list) else [content]
    return [Turn("user", content), Turn("assistant", [answer])]


def test_pictures_outside_the_folder_are_refused(source, root, tmp_path):
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "a" / "inner.png").symlink_to(root / "a" / "1.png")
    names = [
        "../secret.png",
        "a/../../secret.png",
        str(tmp_path / "secret.png"),
        "a\\..\\x.png",
    ]
    made = source(
        "generation", [{"image": name, "caption": "x"} for name in [*names, "a/inner.png"]]
    )
    for i, name in enumerate(names):
        error = refused(lambda i=i: made.image(i))
        assert error.cause == "outside the folder"
        said = f'data.json: record {i}: field "image" leaves the folder of the pictures: '
        # A long value is cut where it is quoted.
        assert said + repr(name)[:60] in str(error)
    assert made.image(4).size == (4, 5)


def test_pictures_inside_the_record(source):
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    records = [
        {"image": i, "caption": "x"}
        for i in (data, data[:-3] + "%", data[: len(data) // 2 // 4 * 4 + 2])
    ]
    made = source("generation", records)
    assert made.image(0).size == (3, 4) and made.portable(0) == {"image": PNG, "caption": "x"}
    for i in (1, 2):
        error = refused(lambda i=i: made.image(i), (RecordError, ImageError))
        assert f"data.json: record {i}" in str(error)
    assert refused(lambda: made.image(1)).cause == "bad base64"
    assert refused(lambda: made.image(0, 1)).cause == "no picture"


def test_rotten_pictures_name_their_file(source, root):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    photo.save(root / "cut.jpg")
    (root / "cut.jpg").write_bytes((root / "cut.jpg").read_bytes()[:2000])
    (root / "zero.png").write_bytes(b"")
    (root / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    names = ["cut.jpg", "zero.png", "page.jpg", "a", "gone.png"]
    made = source("generation", [{"image": name, "caption": "x"} for name in names])
    for i, (name, why) in enumerate(
        zip(names, ["truncated", "is empty", "HTML", "is a directory", "no such file"])
    ):
        assert made[i] == {"captions": ["x"]}
        error = str(refused(lambda i=i: made.image(i), ImageError))
        assert name in error and why in error
    assert refused(lambda: made.portable(4)).cause == "missing file"


def test_every_file_that_is_gone_is_told_with_one_remedy(tmp_path):
    """The records themselves, a picture to be copied, and a caption beside its picture."""
    made = []
    for write in (flat, json_lines, json_lines):
        root = tmp_path / str(len(made))
        root.mkdir()
        made.append(open_dataset(Dataset("generation", str(write(root, 2))), 24, 0))
    beside, lines, copied = made
    assert copied[0]  # its fields are kept while its picture is copied
    for path in ("0/000.txt", "1/data.jsonl", "2/0.jpg"):
        (tmp_path / path).unlink()
    again = pickle.loads(pickle.dumps(lines))  # as a worker that opens the file anew
    for read in (lambda: beside[0], lambda: again[0], lambda: copied.portable(0)):
        error = refused(read)
        assert error.cause == "missing file"
        remedy = "No such file or directory; check the path, its permissions and the disk"
        assert str(error).endswith(remedy), error


def test_what_a_kind_leaves_out_is_said(source, caplog):
    source("generation", [{"image": "a/1.png", "caption": "x"}, {"text": "y"}])
    said = [r for r in caplog.records if r.levelname == "WARNING"]
    assert any("1 of 2 records are not of kind generation" in r.getMessage() for r in said)


def test_a_document_is_read_once_for_all_its_pictures(source, monkeypatch):
    two = {"texts": ["One", None, None], "images": [None, "a/1.png", "a/2.png"]}
    made = source("understanding", [two, two])
    reads = []
    read = type(made.reader).__getitem__
    monkeypatch.setattr(
        type(made.reader), "__getitem__", lambda self, i: reads.append(i) or read(self, i)
    )
    for i in (1, 0, 1):
        assert made[i]["document"] == ["One", None, None]
        assert [made.image(i, k).size for k in (0, 1)] == [(4, 5), (8, 5)]
    assert reads == [1, 0, 1]


def test_home_is_expanded(source, root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.json").write_text(
        json.dumps([{"image": str(root / "a/1.png"), "caption": "x"}])
    )
    made = open_dataset(Dataset("generation", "~/data.json", images="~/pictures"), 24, 0)
    assert made.image(0).size == (4, 5)  # a whole path that stays in the folder


def test_small_and_low_scored_records_are_left_out_when_opened(tmp_path, caplog):
    sizes = {"a": 40, "b": 96, "c": 96, "d": 96}
    for name, size in sizes.items():
        (tmp_path / f"{name}.jpg").write_bytes(jpeg("astronaut", size))
    (tmp_path / "d.jpg").write_bytes(b"rotten")
    records = [
        {"image": f"{n}.jpg", "caption": n, "aesthetic": 5 + k} for k, n in enumerate("abcd")
    ]
    records += [{"image": "a.jpg", "caption": "e", "aesthetic": 9, "width": 64, "height": 80}]
    records += [
        {"image": "b.jpg", "caption": "f"},
        {"image": "b.jpg", "caption": "g", "aesthetic": "high"},
    ]
    records += [{"image": "b.jpg", "caption": "h", "aesthetic": float("nan")}]
    bomb = PngImagePlugin.PngInfo()
    bomb.add_text("x", "y" * (2**20 + 1), zip=True)  # Pillow alone refuses it
    Image.new("RGB", (96, 96)).save(tmp_path / "bomb.png", pnginfo=bomb)
    records += [{"image": "bomb.png", "caption": "i", "aesthetic": 9}]
    (tmp_path / "data.json").write_text(json.dumps(records))
    options = {"min_side": 64, "score": "aesthetic", "min_score": 6.5}
    source = open_dataset(Dataset("generation", str(tmp_path / "data.json"), **options), 24, 0)
    assert [source.where(i)[-1] for i in range(len(source))] == ["2", "3", "4", "5", "6", "8"]
    assert source[0]["captions"] == ["c"] and source.image(0).size == (96, 96)
    for i, cause in ((3, "missing field"), (4, "wrong type")):
        with pytest.raises(
            RecordError, match=f'data.json: record {i + 2}: field "aesthetic"'
        ) as error:
            source[i]
        assert error.value.cause == cause
    assert any(
        "shorter side >= 64 and aesthetic >= 6.5: kept 6 of 9 records" in m for m in caplog.messages
    )
    message = refusal(tmp_path / "data.json", score="aesthetic", min_score=1000)
    assert "no record has aesthetic >= 1000; lower min_side or min_score" in message
    assert '2 cannot be read, such as data.json: record 5: field "aesthetic"' in message
    message = refusal(tmp_path / "data.json", min_score=6.5)
    assert "min_score is 6.5, and no field is named that holds it; name it as score" in message


def test_fingerprints_see_what_changed(tmp_path):
    def prints(path=tmp_path / "flat", **options):
        source = open_dataset(Dataset("generation", str(path), **options), 24, 0)
        return source.fingerprint, source.pictures_fingerprint

    for name in ("flat", "many"):
        (tmp_path / name).mkdir()
    flat(tmp_path / "flat", 2)
    first = prints()
    (tmp_path / "flat" / "001.txt").write_text(caption(7) + "\n")
    second = prints()
    assert first[0] != second[0] and first[1] == second[1]
    (tmp_path / "flat" / "001.jpg").write_bytes(photo(5) + b"\0")
    assert prints()[1] != second[1]
    # The same number of pictures is left, but others.
    listed = json_lines(tmp_path / "many", 2)
    (tmp_path / "many" / "1.jpg").write_bytes(jpeg("coffee", 40))
    before = prints(listed, min_side=50)
    for k, k2 in ((0, 2), (1, 0), (2, 1)):
        os.rename(tmp_path / "many" / f"{k}.jpg", tmp_path / "many" / f"{k2}.jpg")
    assert set(before).isdisjoint(prints(listed, min_side=50))


def test_the_fingerprint_follows_the_content_and_the_options(tmp_path):
    path = json_lines(tmp_path, 3)
    prints = [
        open_dataset(Dataset("generation", str(path), **o), 24, 0).fingerprint
        for o in ({}, {"prompt": ("a {caption}",)})
    ]
    path.write_text(path.read_text().replace("number 1", "number 7"))
    prints.append(open_dataset(Dataset("generation", str(path)), 24, 0).fingerprint)
    assert len(set(prints)) == 3
