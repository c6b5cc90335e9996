"""Shards of WebDataset: samples, damage, and change under way."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from support.formats import array_record, jpeg, refusal, tars

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.image_files import read_image
from janus_jax.data.messages import PICTURE
from janus_jax.data.sources import RecordError


def test_class_numbers_and_several_pictures_in_tars(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in {
            "x/1.cls": b"1", "x/1.jpg": jpeg("coffee"), "x/2.left.jpg": jpeg("coffee"),
            "x/2.right.jpg": jpeg("chelsea"), "x/2.json": b'{"question": "same?", "answer": "no", "image": "z.jpg"}',
            "x/._2.jpg": b"mac", "x/3.json": b"{", "x/4.txt": b"caf\xe9", "x/4.png": b"",
        }.items():  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (tmp_path / "names.json").write_text('["zero", "one, uno"]')
    drawn = open_dataset(
        Dataset("generation", str(tmp_path / "a.tar"), names=str(tmp_path / "names.json")), 24, 0
    )
    asked = open_dataset(Dataset("understanding", str(tmp_path / "a.tar")), 24, 0)
    assert len(drawn) == 4 and drawn[0]["captions"] == ["one"]
    assert asked[1]["messages"][0].content == [PICTURE, "\n", PICTURE, "\n", "same?"]
    assert np.array_equal(asked.image(1, 1), read_image(io.BytesIO(jpeg("chelsea"))))
    for i, cause in ((2, "not JSON"), (3, "not UTF-8")):
        with pytest.raises(RecordError, match=f"a.tar: sample {i}, x/{i + 1}") as error:
            drawn[i]
        assert error.value.cause == cause
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_damaged_shards_are_refused_by_name(tmp_path, caplog):
    root = tars(tmp_path, 6)
    whole = (root / "0.tar").read_bytes()
    (root / "0.tar").write_bytes(whole.rstrip(b"\0") + bytes(-len(whole.rstrip(b"\0")) % 512))
    assert len(open_dataset(Dataset("generation", str(root)), 24, 0)) == 6
    assert any("0.tar: has no end mark; if it was cut off" in m for m in caplog.messages)
    (root / "0.tar").write_bytes(whole[: len(jpeg("astronaut")) // 2])
    with tarfile.open(root / "1.tar") as tar:
        second = tar.getmembers()[1].offset
    (root / "1.tar").write_bytes(whole[:second] + b"?" * 512 + whole[second + 512 :])
    (root / "2.tar").write_bytes(b"\x1f\x8b" + whole)
    (root / "3.tar").write_bytes(bytes(10240))
    (root / "4.tar").write_bytes(b"<html>" * 200)
    message = refusal(root)
    for why in (
        "0.tar: is cut off within '",
        "2.tar: is compressed",
        "3.tar: holds no samples",
        "4.tar: is no tar",
    ):
        assert why in message
    (root / "5.tar").write_bytes(b"")
    assert "5.tar: is empty (0 bytes)" in refusal(root)
    (tmp_path / "a.array_record").write_bytes(
        (array_record(tmp_path, 12) / "x-00000-of-00002.array_record").read_bytes()[:-9999]
    )
    assert "a.array_record: cannot be read as ArrayRecord" in refusal(tmp_path / "a.array_record")


def header(name, size=b"0", kind=b"0", data=b""):
    """A ustar member whose size field is `size` as it stands."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size.ljust(12, b"\0"), kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data.ljust(-len(data) // 512 * -512, b"\0")


def test_tars_whose_sizes_are_damaged_come_to_an_end(tmp_path):
    for name, content in {
        "negative": header("a.txt", b"-1000"),
        "zero": header("p", b"%o" % 8, b"x", b"0 path=a"),
        "words": header("p", b"%o" % 10, b"x", b"abc path=a"),
        "size": header("p", b"%o" % 11, b"x", b"11 size=-9\n") + header("a.txt"),
    }.items():
        (tmp_path / f"{name}.tar").write_bytes(content + bytes(1024))
    message = refusal(tmp_path)
    for why in (
        "negative.tar: is no tar", "zero.tar: is damaged (a pax record of 0 bytes)", "words.tar: is damaged ('a pax",
        "size.tar: is damaged ('a.txt' has size '-9')",
    ):  # fmt: skip
        assert why in message


def test_shards_that_change_while_they_are_read(tmp_path):
    line = Dataset("generation", str(tars(tmp_path, 6)))
    source = open_dataset(line, 24, 0)
    os.truncate(tmp_path / "0.tar", 100)
    os.remove(tmp_path / "1.tar")
    for i, cause in ((0, "damaged"), (2, "damaged"), (3, "missing file")):
        with pytest.raises(RecordError, match=rf"{i // 3}\.tar") as error:
            source[i]
        assert error.value.cause == cause and source.where(i).startswith(
            f"{i // 3}.tar: sample {i % 3}"
        )


def test_samples_whose_files_are_not_neighbours_are_a_fault_of_the_shard(tmp_path, caplog):
    """Not "no caption" of one half of them and "0 pictures" of the other."""
    for k in range(2):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg("coffee"))
        (tmp_path / f"{k}.txt").write_text("coffee")
    (tmp_path / "0.heic").write_bytes(b"x")

    def shard(name, members):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member in members:
                tar.add(tmp_path / member, member)
        return tmp_path / name

    message = refusal(shard("apart.tar", ["0.jpg", "1.jpg", "0.txt", "1.txt"]))
    assert "apart.tar: the files of one sample are not neighbours (0, 1: 2 of 2 samples)" in message
    assert "tar --sort=name" in message
    for name, members in (("a-0.tar", ["0.jpg", "1.jpg"]), ("a-1.tar", ["0.txt", "1.txt"])):
        shard(name, members)
    halves = refusal(tmp_path / "a-*.tar")
    assert "a-0.tar holds pictures alone, a-1.tar none; the files of one sample" in halves
    twice = shard("twice.tar", ["0.jpg", "0.txt", "1.jpg", "1.txt", "0.jpg", "0.txt"])
    assert len(open_dataset(Dataset("generation", str(twice)), 24, 0)) == 3
    for folder, suffix in (("images", "jpg"), ("labels", "txt")):
        (tmp_path / folder).mkdir()
        for k in range(2):
            (tmp_path / f"{k}.{suffix}").rename(tmp_path / folder / f"{k}.{suffix}")
    files = [f"{folder}.{s}" for s, folder in (("jpg", "images/0"), ("txt", "labels/0"))]
    folders = refusal(shard("folders.tar", files))
    assert "the files of one sample are in two folders (images/0.jpg, labels/0.txt: 1" in folders
    for k in range(2):
        (tmp_path / "images" / f"{k}.jpg").rename(tmp_path / f"{k}.jpg")
        (tmp_path / "labels" / f"{k}.txt").rename(tmp_path / f"{k}.txt")
    unread = shard("unread.tar", ["0.heic", "0.jpg", "0.txt"])
    assert open_dataset(Dataset("generation", str(unread)), 24, 0)[0]["captions"] == ["coffee"]
    assert any("unread.tar: members not read: 1 .heic" in m for m in caplog.messages)


def test_a_name_with_dots_is_said_to_end_at_the_first(tmp_path, caplog):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("img.v1.jpg", jpeg("coffee")), ("img.v1.txt", b"coffee")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    open_dataset(Dataset("generation", str(tmp_path / "a.tar")), 24, 0)
    said = (
        "a.tar: members not read: 1 .v1.txt; a sample's name ends at its first dot: rename *.v1.txt"
    )
    assert any(said in m for m in caplog.messages)
