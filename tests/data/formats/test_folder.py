"""Folders of classes, and captions beside pictures."""

import os

import pytest
from support.formats import jpeg, photo, refusal, write_classes

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.image_files import ImageError
from janus_jax.data.sources import RecordError


@pytest.mark.parametrize(
    "names",
    [
        '{"n01": "tench, Tinca tinca", "n02": ["goldfish", "Carassius"]}',
        '{"0": ["n01", "tench"], "1": ["n02", "goldfish"]}',
        "n01\ttench, Tinca tinca\nn02\tgoldfish, Carassius\n",
        "n01 tench, Tinca tinca\r\nn02 goldfish, Carassius",
    ],
)
def test_class_folders_and_their_names(tmp_path, names, caplog):
    root, table = write_classes(tmp_path / "train"), tmp_path / "names"
    table.write_text(names)
    line = Dataset("generation", root, names=str(table), prompt=("a photo of {name}",))
    source = open_dataset(line, 24, 0)
    assert [source[i]["captions"] for i in (0, 2, 4)] == [
        ["a photo of tench"],
        ["a photo of goldfish"],
        ["a photo of sea lion"],
    ]
    assert [source.where(i) for i in range(3)] == ["n01/a.png", "n01/b.JPEG", "n02/a.png"]
    assert [m for m in caplog.messages if "sea_lion" in m] == [
        f"{table}: does not name class 'sea_lion', perhaps others: it is called 'sea lion'"
    ]
    both = Dataset("generation", root, names=str(table), caption="names")
    if "Tinca" in names:
        assert open_dataset(both, 24, 0)[0]["captions"] == ["tench", "Tinca tinca"]


def test_folders_that_are_neither_layout_are_refused(tmp_path):
    write_classes(tmp_path / "up" / "birds")
    assert "no picture in its folder 'birds', and folders are classes here" in refusal(
        tmp_path / "up"
    )
    for k in range(2):
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{k}.png").write_bytes(jpeg("coffee"))
    assert "no .txt or .json with its caption beside any of 2 pictures" in refusal(
        tmp_path / "flat"
    )
    (tmp_path / "flat" / "1.json").write_text('{"caption": "coffee", "image": "ignored.png"}')
    source = open_dataset(Dataset("generation", str(tmp_path / "flat")), 24, 0)
    assert source[1] == {"captions": ["coffee"]} and source.image(1).width == 96
    with pytest.raises(RecordError, match=r"0\.png: no \.txt or \.json"):
        source[0]
    (tmp_path / "none").mkdir()
    assert "no pictures and no folders in it" in refusal(tmp_path / "none", format="folder")


def test_names_that_are_no_utf8(tmp_path):
    stem = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    for suffix, content in ((b".jpg", photo(0)), (b".txt", b"a caf\xc3\xa9")):
        with open(stem + suffix, "wb") as file:
            file.write(content)
    with open(stem[:-1] + b"\xe8.jpg", "wb") as file:
        file.write(b"rotten")
    with open(stem[:-1] + b"\xe8.txt", "wb") as file:
        file.write(b"\xff")
    source = open_dataset(Dataset("generation", str(tmp_path)), 24, 0)
    assert source[1]["captions"] == ["a café"] and source.image(1).size == (96, 64)
    assert source.where(1) == "caf\\udce9.jpg"
    for read, why in ((source.__getitem__, "not UTF-8"), (source.image, "damaged")):
        with pytest.raises((RecordError, ImageError)) as error:
            read(0)
        assert "caf\\udce8" in str(error.value).encode().decode() or why == "damaged"
    (tmp_path / "a.jsonl").write_text('{"image": "x.jpg", "\\ud800": 1}')
    with pytest.raises(RecordError, match="no caption") as error:
        open_dataset(Dataset("generation", str(tmp_path / "a.jsonl")), 24, 0)[0]
    assert "\\ud800" in str(error.value) and str(error.value).isascii()
