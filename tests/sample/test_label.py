"""A new field for every record: shares, kills, bad records, and what training reads of it."""

import dataclasses
import io
import json
import os
import tarfile

import pytest
from support.labelled import bad, files, labelling, opened, photos, pixels, records, run

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.progress import Progress
from janus_jax.config.schema import Dataset
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.sample import label


def progress():
    return Progress("test", 0)


def doubled(things):
    return [2 * i for i in things]


def killed_at_the_tenth(function):
    def call(source, i, new):
        if i == 9:
            raise KeyboardInterrupt
        return function(source, i, new)

    return call


def test_shares_and_kills_change_no_byte(tmp_path, monkeypatch):
    line = photos(tmp_path, 19)
    whole = labelling(line, tmp_path / "whole")
    run(whole, lambda i: i, doubled)
    assert [record["new"] for record in records(whole)] == [2 * i for i in range(19)]
    assert sorted(files(whole.folder)) == [label.BAD_RECORDS, label.RECORDS]
    shared = labelling(line, tmp_path / "shared")
    run(shared, lambda i: i, doubled, shares=3)
    killed = labelling(line, tmp_path / "killed")
    label.label_share(killed, lambda i: i, doubled, (0, 2), 2, progress())
    log = killed.folder / label.LOG.format(0)
    log.write_bytes(log.read_bytes()[:-7])  # of the third of its batches
    again = []
    run(killed, lambda i: i, lambda things: again.append(things) or doubled(things))
    assert again == [[4, 5, 6, 7], [12, 13, 14, 15], [16, 17, 18]]
    cut = labelling(line, tmp_path / "cut")
    for k in range(3):
        label.label_share(cut, lambda i: i, doubled, (k, 3), 2, progress())
    with monkeypatch.context() as kill, pytest.raises(KeyboardInterrupt):
        kill.setattr(label, "json_line", killed_at_the_tenth(label.json_line))
        label.gather(cut)
    assert not cut.is_done
    label.gather(cut)
    assert files(cut.folder) == files(whole.folder)
    assert files(shared.folder) == files(killed.folder) == files(whole.folder)


def test_what_cannot_be_used_is_left_out_and_listed_as_training_lists_it(tmp_path, capsys):
    line = photos(tmp_path, 9)
    (tmp_path / "photos" / "2.png").unlink()
    (tmp_path / "photos" / "5.png").write_bytes(b"<html>")
    job = labelling(line, tmp_path / "out")
    refuse = lambda i: ValueError(f"no {i}") if i == 7 else i
    run(job, lambda i: job.source.image(i) and i, lambda things: [refuse(i) for i in things])
    assert [record["number"] for record in records(job)] == [0, 1, 3, 4, 6, 8]
    found = [(one["record"], one["where"], one["cause"]) for one in bad(job)]
    assert found == [
        (2, "captions.jsonl:3", "missing file"),
        (5, "captions.jsonl:6", "web page"),
        (7, "captions.jsonl:8", "cannot be encoded"),
    ]
    assert "2.png: no such file" in bad(job)[0]["message"]
    assert ", 3 cannot be used" in capsys.readouterr().err


def test_a_hundred_in_a_row_end_it_and_so_do_no_records_at_all(tmp_path):
    line = photos(tmp_path, 101)

    def nothing(i):
        raise RecordError("bad", f"record {i}")

    job = labelling(line, tmp_path / "out", batch=16)
    with pytest.raises(SourceError, match=r"100 records in a row cannot be used.*record 99"):
        run(job, nothing, doubled)
    few = dataclasses.replace(labelling(line, tmp_path / "few"), count=5)
    with pytest.raises(SourceError, match="no record can be used; the first: record 0"):
        run(few, nothing, doubled)
    assert not few.is_done and not list(few.folder.iterdir())  # tried again


def test_a_field_that_is_there_is_not_replaced(tmp_path):
    job = dataclasses.replace(labelling(photos(tmp_path, 3), tmp_path / "out"), field="number")
    with pytest.raises(SourceError, match='has a field "number" already; name another --field'):
        run(job, lambda i: i, doubled)


def test_logs_that_are_damaged_or_removed_are_told(tmp_path):
    job = labelling(photos(tmp_path, 9), tmp_path / "out")
    label.label_share(job, lambda i: i, doubled, (0, 2), 2, progress())
    with pytest.raises(UsageError, match=r"1 batches are missing, the first 1 .*start the same"):
        label.gather(job)
    with open(job.folder / label.LOG.format(0), "a") as out:
        out.write('{"batch": 1}\n')
    with pytest.raises(UsageError, match=r"labels-0\.jsonl:3: no line of this command"):
        label.gather(job)


def test_pictures_that_are_files_are_named_and_others_go_into_the_record(tmp_path):
    line = photos(tmp_path, 4)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(4):
            tar.add(tmp_path / "photos" / f"{i}.png", f"{i}.png")
            text = f"photo {i}".encode()
            info = tarfile.TarInfo(f"{i}.txt")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text))
    odd = tmp_path / "odd"
    odd.mkdir()
    for i, name in enumerate(["a.png", os.fsdecode(b"b\xff.png")]):
        (odd / name).write_bytes((tmp_path / "photos" / f"{i}.png").read_bytes())
    tars = Dataset("generation", str(tmp_path / "a.tar"))
    bare = Dataset("generation", str(odd))
    for given, root, images in (
        (line, line.images, [f"{i}.png" for i in range(4)]),
        (tars, "", None),
        (bare, str(odd), None),
    ):
        job = labelling(given, tmp_path / f"out{root.count('/')}{len(root)}", bare=True)
        run(job, lambda i: i, lambda things: [f"caption {i}" for i in things])
        assert label.picture_root(job.source) == root
        path = str(job.folder / label.RECORDS)
        read = opened(Dataset("generation", path, images=root, caption="new"))
        assert [read[i] for i in range(len(read))] == [
            {"captions": [f"caption {i}"]} for i in range(len(job.source))
        ]
        assert [pixels(read, i) for i in range(len(read))] == [
            pixels(job.source, i) for i in range(len(read))
        ]
        if images:
            assert [record["image"] for record in records(job)] == images
    assert records(job)[0] == {"image": "a.png", "new": "caption 0"}
    assert records(job)[1]["image"].startswith("data:image/png;base64,")


def test_documents_keep_the_places_of_their_pictures(tmp_path):
    line = photos(tmp_path, 2)
    document = {"images": [None, "1.png", "0.png"], "texts": ["one", None, None], "caption": None}
    (tmp_path / "captions.jsonl").write_text(json.dumps(document))
    job = labelling(dataclasses.replace(line, kind="understanding"), tmp_path / "out")
    run(job, lambda i: i, doubled)
    assert records(job) == [
        {"image": [None, "1.png", "0.png"], "texts": ["one", None, None], "new": 0}
    ]


def test_fields_that_json_cannot_hold_are_told(tmp_path, monkeypatch):
    job = labelling(photos(tmp_path, 3), tmp_path / "out")
    raw = job.source.raw
    monkeypatch.setattr(job.source, "raw", lambda i: raw(i) | ({"mask": b"1"} if i == 1 else {}))
    run(job, lambda i: i, doubled)
    assert [record["number"] for record in records(job)] == [0, 2]
    (told,) = bad(job)
    assert told["cause"] == "no JSON" and "type bytes" in told["message"]
