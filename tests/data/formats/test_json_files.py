"""JSON lists and JSON lines: encodings, sizes, and files that are none."""

import json

import pytest
from support.formats import refused

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.sources import SourceError


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_json_lines_with_bom_crlf_and_nul_by_content(source, name):
    lines = ['{"text": "one\\u2028line \U0001f427"}', "", '{"text": "nul\0 inside"}', "\0\0\0"]
    made = source("text", "\ufeff".encode() + "\r\n".join(lines).encode(), name)
    assert [made[i]["text"] for i in range(len(made))] == ["one\u2028line \U0001f427", "nul inside"]
    assert [made.where(i) for i in range(2)] == [f"{name}:1", f"{name}:3"]
    raw = source(
        "text", '{"text": "a\u2028b\x85c"}'.encode(), "raw.jsonl"
    )  # line breaks to str.splitlines only
    assert raw[0]["text"] == "a\u2028b\x85c"


def test_a_list_larger_than_what_is_decoded_at_a_time(source):
    """Records that straddle the edges of the windows, one longer than a window, characters of one
    to four bytes."""
    texts = [
        f'{i} é \U0001f427 \\ " ],' * (1 + 997 * (i % 7) + 200_000 * (i == 11)) for i in range(200)
    ]
    listed = json.dumps([{"text": text} for text in texts], ensure_ascii=False, indent=1).encode()
    made = source("text", listed)
    assert len(made) == 200 and all(made[i]["text"] == texts[i] for i in (0, 7, 11, 12, 150, 199))
    for end in (len(listed) - 2, listed.rindex(b"}") + 1, len(listed) // 2):
        error = refused(lambda end=end: source("text", listed[:end]), SourceError)
        assert "is not JSON: record" in str(error) and "mend or cut the list" in str(error)
    assert "goes on after the list" in str(
        refused(lambda: source("text", listed + b"[{}]"), SourceError)
    )


@pytest.mark.parametrize("content", [b"", b" \n\r\n", b"[]", b"\0\0", b"\xef\xbb\xbf"])
def test_empty_files_are_refused(source, content):
    assert "data.json: is empty" in str(refused(lambda: source("text", content), SourceError))


def test_files_that_are_no_json_are_refused(source, tmp_path):
    for content, why in (
        (b"<html>\n<body>", "begins with b'<html>"), (b'{"images":\n[\n]\n}\n', "neither a JSON list"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"), (b"\x1f\x8b\x08x", "cannot be unpacked"),
        ('{"text": "x"}'.encode("utf-16"), "UTF-16"), (b'[{"text": "a"} x]', "is not JSON: record 1, at byte 15"),
    ):  # fmt: skip
        assert why in str(refused(lambda content=content: source("text", content), SourceError))
    error = refused(lambda: source("generation", [{"text": "a"}]), SourceError)
    assert 'no record has the field "image"' in str(error)
    assert (
        "the fields there are: text); name the one that holds it as picture; as text, use kind text"
        in str(error)
    )
    line = Dataset("text", str(tmp_path / "data.json"), images=str(tmp_path / "no"))
    assert "images: no folder" in str(refused(lambda: open_dataset(line, 24, 0), SourceError))
