"""Which files a path names, and their fingerprints."""

import concurrent.futures
import gzip
import json
import os
import pickle
import resource
import shutil
import time

import pytest
from support.formats import array_record, caption, gzipped, json_lines, refusal, refused

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.formats import files
from janus_jax.data.formats import gzipped as zipped
from janus_jax.data.formats.files import Files, allow_open_files, inside
from janus_jax.data.formats.names import Names
from janus_jax.data.image_files import read_image
from janus_jax.data.sources import RecordError, SourceError


def test_files_are_found_once_in_one_order(tmp_path, caplog):
    for name in ("b-1.jsonl", "b-0.jsonl", "sub/c-0.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}))
    (tmp_path / "b-2.jsonl").symlink_to(tmp_path / "b-0.jsonl")
    (tmp_path / "copy.jsonl").write_text((tmp_path / "b-0.jsonl").read_text())

    def texts(pattern):
        source = open_dataset(Dataset("text", str(tmp_path / pattern), format="json"), 24, 0)
        return [source[i]["text"] for i in range(len(source))]

    assert texts("") == ["b-0.jsonl", "b-1.jsonl", "b-0.jsonl", "sub/c-0.jsonl"]
    assert any("b-2.jsonl is the same file as" in m for m in caplog.messages)
    assert (
        "copy.jsonl begins like b-0.jsonl and has its size: if it is a copy, remove it"
        in caplog.messages
    )
    assert texts("b-?.jsonl") == texts("b-{0..1}.jsonl") == ["b-0.jsonl", "b-1.jsonl"]
    assert texts("**/*-0.jsonl") == ["b-0.jsonl", "sub/c-0.jsonl"]
    with pytest.raises(SourceError, match="nothing is from 1 to 0; give the smaller"):
        texts("b-{1..0}.jsonl")
    for pattern in ("no-*.jsonl", "no.jsonl", "b-{0..7}.jsonl"):
        with pytest.raises(SourceError, match="no such file"):
            texts(pattern)


def test_too_many_open_files_is_no_fault_of_a_record(tmp_path, monkeypatch):
    listed = open_dataset(Dataset("generation", str(json_lines(tmp_path, 3))), 24, 0)
    listed = pickle.loads(pickle.dumps(listed))  # without open files, as in a worker
    shards = open_dataset(
        Dataset("generation", str(array_record(tmp_path, 4)), "array_record"), 24, 0
    )
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with pytest.raises(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for source, i in ((listed, 0), (shards, 3)):
            with pytest.raises(SourceError, match="ulimit -n"):
                source[i]
        with pytest.raises(SourceError, match="ulimit -n"):
            read_image(tmp_path / "0.jpg")
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert listed[0]["captions"] == [caption(0)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    with pytest.raises(SourceError, match=r"x: 200 shards stay open .* `ulimit -n 264`"):
        allow_open_files(200, "x")
    allow_open_files(192, "x")


def test_fingerprints_of_large_files(tmp_path):
    lines = [json.dumps({"text": "x" * 1000, "n": n}) for n in range(5000)]
    lines[2500:2500] = [json.dumps({"text": "one"})]
    path = tmp_path / "x.jsonl"

    def of(read):
        path.write_text("\n".join(lines))
        return read()

    reads = (
        lambda: open_dataset(Dataset("text", str(path)), 24, 0).fingerprint,
        lambda: Files(str(path), (".jsonl",)).fingerprint(),
    )
    before = [of(read) for read in reads]
    shutil.copy2(path, tmp_path / "copy")
    os.rename(tmp_path / "copy", path)
    assert reads[0]() == before[0] and reads[1]() == before[1]
    lines[2500] = json.dumps({"text": "two"})
    assert [of(read) != b for read, b in zip(reads, before)] == [True, True]


def test_folders_behind_links(tmp_path):
    (tmp_path / "real" / "in").mkdir(parents=True)
    (tmp_path / "real" / "in" / "a.jpg").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = os.path.realpath(tmp_path / "real" / "in" / "a.jpg")
    for name in ("in/a.jpg", real, str(tmp_path / "link" / "in" / "a.jpg")):
        assert inside(str(tmp_path / "link"), name) == real
    for name in (str(tmp_path / "b.jpg"), "in/../in/a.jpg", "a\0.jpg", "\ud800"):
        with pytest.raises(RecordError) as error:
            inside(str(tmp_path / "link"), name)
        assert error.value.cause == "outside the folder"


def test_what_cannot_be_opened_is_refused(tmp_path, monkeypatch):
    (tmp_path / "names.json").write_text('{"0": [1, 2]}')
    with pytest.raises(SourceError, match="holds no names of classes"):
        Names(str(tmp_path / "names.json"))
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "pipe.jsonl: is no regular file" in refusal(tmp_path / "pipe.jsonl")

    def denied(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "Permission denied; give a folder that can be read" in refusal(tmp_path)


def test_a_gzipped_file_is_unpacked_once_for_all_threads_and_when_it_is_gone_its_records_are_bad(
    tmp_path, monkeypatch
):
    """Each of sixteen threads held a copy, and a file that was gone ended the worker."""
    path = gzipped(tmp_path, 16)
    copy = pickle.dumps(open_dataset(Dataset("generation", str(path)), 24, 0))
    unpacked = []

    def slowly(path, held):
        unpacked.append(path)
        time.sleep(0.02)
        return gzip.decompress(open(path, "rb").read())

    monkeypatch.setattr(files, "unpacked", slowly)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        read = list(pool.map(pickle.loads(copy).__getitem__, range(16)))
    assert read[3] == {"captions": [caption(3)]} and len(unpacked) == 1
    path.unlink()
    assert refused(lambda: pickle.loads(copy)[0]).cause == "missing file"


def test_gzipped_files_together_are_no_more_than_a_process_may_hold(tmp_path, monkeypatch):
    """Each of a hundred might be as large."""
    monkeypatch.setattr(zipped, "_MOST", 100)
    for name in ("a", "b"):
        text = json.dumps({"text": name * 60})
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert len(open_dataset(Dataset("text", f"{tmp_path}/a.jsonl.gz"), 24, 0)) == 1
    message = refusal(tmp_path, "text")
    assert "b.jsonl.gz: unpacks, with the files before it, to more than" in message
    assert "a.jsonl.gz: " not in message
