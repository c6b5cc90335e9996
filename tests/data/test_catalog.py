"""Which reader a line of a config gets."""

import concurrent.futures
import gzip
import io
import pickle

import numpy as np
import pytest
from support.formats import (
    WRITERS,
    caption,
    jpeg,
    json_list,
    photo,
    refusal,
    tars,
    tfds,
    write_classes,
)

from janus_jax.config.schema import FORMATS, Dataset, Template
from janus_jax.data import catalog
from janus_jax.data.catalog import detect, learn_tokenizer, open_dataset, open_datasets
from janus_jax.data.image_files import read_image
from janus_jax.data.sources import SourceError


def test_each_format_that_a_config_may_name_has_a_reader():
    assert tuple(catalog._READERS) == FORMATS


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: getattr(f, "__name__", "tars_long_names"))
def test_what_is_written_is_read_back(write, tmp_path):
    line = Dataset("generation", str(write(tmp_path, 12)))
    source = open_dataset(line, 24, 0)
    numbers = [int(source[i]["captions"][0].split()[-1]) for i in range(len(source))]
    assert sorted(numbers) == list(range(12)) and (write is tfds or numbers == list(range(12)))

    def row(i):
        return source[i], np.asarray(source.image(i)).tobytes(), source.where(i)

    for i, k in enumerate(numbers):
        record, pixels, where = row(i)
        written = np.asarray(read_image(io.BytesIO(photo(k))))
        assert record == {"captions": [caption(k)]} and pixels == written.tobytes()
        assert source.portable(i)["image"] == photo(k) and str(tmp_path) not in where
    copy, again = pickle.loads(pickle.dumps(source)), open_dataset(line, 24, 0)
    assert repr(copy) == repr(again) == repr(source) and str(tmp_path) not in repr(source)
    assert again.fingerprint == source.fingerprint
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(12), 8))
    for read in (source, copy):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda i, read=read: np.asarray(read.image(i)).tobytes(), order))
        expected = {i: row(i)[1] for i in range(12)}
        assert got == [expected[i] for i in order]


@pytest.mark.parametrize("format", ["json", "folder", "webdataset", "array_record", "text"])
def test_a_format_that_is_not_there_is_refused(tmp_path, format):
    path = tmp_path / "photo.bin"
    path.write_bytes(jpeg("coffee"))
    if format != "text":  # any file might be text; its records then say what is wrong
        assert "photo.bin" in refusal(path, format=format)
    assert "is one picture; give the folder of the pictures" in refusal(path)
    assert "format is 'tar'" in refusal(path, format="tar")


def test_formats_are_told_from_paths(tmp_path):
    write_classes(tmp_path / "classes")
    assert (
        detect(str(tmp_path / "classes")) == "folder" and detect("a/{000..123}.tar") == "webdataset"
    )
    assert [detect(p) for p in ("hf:a/b:train", "tfds:x@train", "x/*.parquet")] == [
        "hf",
        "tfds",
        "parquet",
    ]
    (tmp_path / "mixed").mkdir()
    for name in ("a.json", "b.tar"):
        (tmp_path / "mixed" / name).write_text("x")
    assert "holds json and webdataset files" in refusal(tmp_path / "mixed")
    (tmp_path / "classes" / "stray.jpg").write_bytes(jpeg("coffee"))
    assert "captions beside pictures, or folders named by class" in refusal(tmp_path / "classes")
    assert "no such file or folder" in refusal(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "is an empty folder" in refusal(tmp_path / "empty")


def test_every_problem_of_a_config_is_told_at_once_and_unused_lines_are_not_opened(tmp_path):
    lines = {
        "a": Dataset("text", str(tmp_path / "a.json")),
        "b": Dataset("texts", "x"),
        "c": Dataset("text", "no.json"),
    }
    with pytest.raises(SourceError) as error:
        open_datasets(
            lines | {"d": Dataset("generation", "shapes:nothing")}, 24, 0, {"a", "b", "d"}
        )
    message = str(error.value)
    assert "data.datasets.a: " in message and "data.datasets.b: kind is 'texts'" in message
    assert "data.datasets.d: shapes:nothing: unknown" in message and "datasets.c" not in message


def test_presets_keep_the_protocol():
    for kind, path in (
        ("understanding", "shapes:"),
        ("text", "shapes:"),
        ("generation", "shapes:pictures"),
    ):
        source = open_dataset(Dataset(kind, path), 24, 3)
        assert (
            source[5] == open_dataset(Dataset(kind, path), 24, 3)[5]
            and source.where(5) == "shapes:5"
        )
        assert source.fingerprint != open_dataset(Dataset(kind, path), 24, 4).fingerprint
    assert source.image(5, k=0).shape == (24, 24, 3) and source[5]["captions"]


def test_a_tokenizer_learns_from_every_good_record(source):
    lines = b'{"text": "zebra zebra zebra"}\n{"broken\n{"text": "' + b"quagga " * 9 + b'"}'
    made = source("text", lines, "words.jsonl")
    document = source(
        "understanding", [{"texts": [None, "okapi " * 9], "images": ["a/1.png", None]}]
    )
    tokenizer = learn_tokenizer({"a": made, "b": document}, Template(), 400)
    for word in (" zebra", "quagga ", "okapi "):
        assert len(tokenizer.encode(word)[0]) < len(word) / 2


def test_a_suffix_that_is_not_known_is_told_by_content_and_what_is_not_read_by_its_remedy(tmp_path):
    """And not by a list of formats only."""
    rows = json_list(tmp_path, 3).rename(tmp_path / "mine.v2")
    assert len(open_dataset(Dataset("generation", str(rows)), 24, 0)) == 3
    assert len(open_dataset(Dataset("generation", str(tmp_path / "*.v?")), 24, 0)) == 3
    (tmp_path / "shards").mkdir()
    shard = tars(tmp_path / "shards", 4) / "0.tar"
    assert detect(str(shard.rename(tmp_path / "shards" / "shard.bin"))) == "webdataset"
    for name, content, remedy in (
        ("a.xlsx", b"PK", "save it as CSV"),
        ("a.parquet.gz", b"", "parquet is not read gzipped; run `gunzip -k` on it"),
        (
            "a.tar.gz",
            gzip.compress((tmp_path / "shards" / "1.tar").read_bytes()),
            "gunzip it, pictures hardly shrink",
        ),
        ("notes.md", b"# Notes", "plain text is read with format=text"),
    ):
        (tmp_path / name).write_bytes(content)
        assert remedy in refusal(tmp_path / name)
    (tmp_path / "words.txt").write_text("words")
    assert "plain text has no pictures, its kind is generation" in refusal(tmp_path / "words.txt")
    (tmp_path / "lines.txt").write_text('{"text": "words"}\n')
    assert "its lines are JSON; set format=json" in refusal(tmp_path / "lines.txt", "text")


def test_what_a_format_does_not_read_is_not_given_for_nothing(tmp_path):
    classes = write_classes(tmp_path / "classes")
    assert "images is" in (said := refusal(classes, images=str(tmp_path)))
    assert "which format folder does not read (json, csv, parquet," in said
    table = str(json_list(tmp_path, 2))
    assert "names is 'a.tsv', which format json does not read" in refusal(table, names="a.tsv")
