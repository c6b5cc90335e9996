"""Conversion as a whole: what it refuses, and that it goes on after a kill."""

import json
import pathlib
import signal
import time

import pytest
from support.planted import FAULTS, files, job, start

from janus_jax.config.schema import Dataset
from janus_jax.data import catalog
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import command, to_array_record


def test_bad_records_are_left_out_listed_and_judged(planted, tmp_path):
    one = job(planted, tmp_path / "out", 3)
    with pytest.raises(
        SourceError, match=r"8 of 16 records .* --max_bad=0.1(?s:.*)zero\.jpg: is empty"
    ):
        to_array_record.convert(one, 1, 0.1)
    with pytest.raises(
        SourceError, match="its conversion was stopped; start the same"
    ):  # training does not take it
        catalog.open_dataset(Dataset("understanding", str(one.out)), 384, 0)
    written = [one.path(k).stat().st_mtime_ns for k in range(3)]
    manifest = to_array_record.convert(one, 1, 0.5)
    assert [one.path(k).stat().st_mtime_ns for k in range(3)] == written, "done again"
    assert manifest["written"] == 8 and manifest["bad"]["web page"] == 1
    listed = [json.loads(line) for line in (one.out / "bad_records.jsonl").read_text().splitlines()]
    assert {line["where"]: line["cause"] for line in listed} == {
        f"all.jsonl:{n}": c for n, c in FAULTS.items()
    }
    assert len(catalog.open_dataset(Dataset("understanding", str(one.out)), 384, 0)) == 8


def test_a_bad_set_stops_the_command_after_a_thousand_records(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(to_array_record, "JUDGED", 25)
    pathlib.Path(plain.images, "3.jpg").write_bytes(b"")
    one = job(plain, tmp_path / "out")
    with pytest.raises(SourceError, match="1 of 25 records"):
        to_array_record.convert(one, 1, 0.02)
    assert not json.loads((one.out / "convert.json").read_text())["complete"]
    with pytest.raises(SourceError, match="its conversion was stopped"):
        catalog.open_dataset(Dataset("generation", str(one.out)), 384, 0)


def test_another_source_and_a_strange_directory_are_refused(plain, tmp_path):
    one = job(plain, tmp_path / "out")
    to_array_record.convert(one, 1, 0.0)
    with pytest.raises(SourceError, match=r"max_side was 0, is 64"):
        to_array_record.convert(job(plain, one.out, max_side=64), 1, 0.0)
    path = pathlib.Path(plain.path)
    path.write_text(path.read_text().replace("crop 7", "crop seven"))
    with pytest.raises(SourceError, match=r"source was '\w{16}', is '\w{16}'"):
        to_array_record.convert(job(plain, one.out), 1, 0.0)
    with pytest.raises(SourceError, match=r"holds out and more, but no convert.json"):
        to_array_record.convert(job(plain, tmp_path), 1, 0.0)
    with (
        to_array_record._claimed(one),
        pytest.raises(SourceError, match="another convert writes there"),
    ):
        to_array_record.convert(one, 1, 0.0)


@pytest.mark.processes
def test_convert_killed_at_any_moment_goes_on_to_the_same_bytes(plain, tmp_path):
    whole = job(plain, tmp_path / "whole", 20)
    to_array_record.convert(whole, 1, 0.0)
    out = tmp_path / "out"
    flags = (
        "--kind=generation", f"--path={plain.path}", f"--images={plain.images}", "--processes=2", "--shards=20",
        f"--out={out}",
    )  # fmt: skip
    killed = start("convert", *flags)
    while not list(out.glob("*.array_record")):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(
        timeout=30
    )  # returns when its workers have left as well: they hold its pipes
    done = len(list(out.glob("*.array_record")))
    assert 0 < done < 20
    again = start("convert", *flags)
    told, errors = again.communicate(timeout=60)
    assert again.returncode == 0 and "100 records in 20 shards" in told, errors
    assert files(out) == files(whole.out)


def test_the_presets_have_no_files_to_convert():
    with pytest.raises(command.CommandError, match="shapes:"):
        to_array_record.open_with_files(Dataset("text", "shapes:"), None)


def test_where_nothing_can_be_written_nothing_is_read(plain, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        command.CommandError, match=r"--out=.*file: File exists; name a directory that this user"
    ):
        to_array_record.convert(job(plain, tmp_path / "file"), 1, 0.0)
