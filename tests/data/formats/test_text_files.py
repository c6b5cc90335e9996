"""Text documents between blank lines, or a file each."""

import gzip

import pytest
from support.formats import refusal

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.sources import RecordError


def test_text_documents(tmp_path):
    (tmp_path / "a.txt").write_bytes(
        "\ufeffone\r\nline\r\n\r\n \r\ntwo \u2028é\n".encode() + b"\n\n\ncaf\xe9\n"
    )
    (tmp_path / "b.txt").write_text("\n\nthree\n")
    source = open_dataset(Dataset("text", str(tmp_path)), 24, 0)
    assert [source[i]["text"] for i in (0, 1, 3)] == ["one\nline", "two \u2028é", "three"]
    with pytest.raises(
        RecordError, match=r"a\.txt: document 2: byte 0xe9 at offset 35 of the file is not UTF-8"
    ):
        source[2]
    whole = open_dataset(Dataset("text", str(tmp_path / "b.txt"), format="text_files"), 24, 0)
    assert len(whole) == 1 and whole[0]["text"] == "three"
    (tmp_path / "b.txt").write_bytes(b"a" + b" " * 10**6 + b"b\n" + bytes(10**6) + b"\n \n  c")
    long = open_dataset(Dataset("text", str(tmp_path / "b.txt")), 24, 0)
    assert [len(long[i]["text"]) for i in range(len(long))] == [10**6 + 2, 3]
    (tmp_path / "c.txt").write_text(" \n\n\0")
    assert "c.txt: holds blank lines only" in refusal(tmp_path, "text")


def test_text_in_utf16_is_refused_and_a_folder_of_gzipped_texts_read(tmp_path):
    """Latin letters of UTF-16 are UTF-8 with zeros between them."""
    (tmp_path / "a.txt").write_text("one\n\ntwo", "utf-16")
    assert "a.txt: is UTF-16; convert it with `iconv" in refusal(tmp_path, "text")
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\n\ntwo"))
    assert len(open_dataset(Dataset("text", str(tmp_path)), 24, 0)) == 2
