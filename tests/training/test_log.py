"""The log of a run: what is on disk and on the screen after kills, resumes and bad numbers."""

import errno
import json
import os
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from support.logs import run
from tensorboardX.proto.event_pb2 import Event

from janus_jax.training.log import Log


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps(workdir):
    return [(r["stage"], r["step"]) for r in records(workdir)]


def events(folder):
    """Every event of a folder's files, oldest file first: length, crc, bytes, crc."""
    for path in sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16


def test_records_and_events_hold_what_was_written(tmp_path):
    log = Log(tmp_path / "new" / "run")
    log.stage("stage2", 100)
    log.write(10, {"loss": np.float32(2.5), "learning_rate": 1e-4})
    record = records(tmp_path / "new" / "run")[0]  # flushed, not only at close
    assert (
        list(record) == ["stage", "step", "time", "loss", "learning_rate"] and record["loss"] == 2.5
    )
    log.close()
    stage2 = events(tmp_path / "new" / "run" / "tensorboard" / "stage2")
    found = {(v.tag, e.step): v.simple_value for e in stage2 for v in e.summary.value}
    assert found == {("stage2/loss", 10): 2.5, ("stage2/learning_rate", 10): pytest.approx(1e-4)}


def test_a_sheet_is_shown_in_tensorboard_with_its_words(tmp_path):
    log = Log(tmp_path)
    log.stage("stage2", 100)
    log.sheet(40, Image.new("RGB", (6, 4), "red"), "* a red circle")
    log.close()
    found = {
        v.tag: (e.step, v)
        for e in events(tmp_path / "tensorboard" / "stage2")
        for v in e.summary.value
    }
    (at, picture), (also, words) = found.values()
    assert at == also == 40 and (picture.image.width, picture.image.height) == (6, 4)
    assert words.tensor.string_val == [b"* a red circle"]
    Log(tmp_path / "other", active=False).sheet(40, None, "")


def test_resume_drops_what_a_killed_run_recorded_later(tmp_path):
    run(tmp_path, ("stage1", 30, 0, 30), ("stage2", 60, 0, 40))
    run(tmp_path, ("stage2", 60, 20, 60))
    first = [("stage1", s) for s in (10, 20, 30)]
    assert steps(tmp_path) == first + [("stage2", s) for s in (10, 20, 30, 40, 50, 60)]
    run(tmp_path, ("stage1", 30, 30, 30))  # already finished: it leaves stage2 alone
    assert len(steps(tmp_path)) == 9
    run(tmp_path, ("stage1", 30, 20, 30))  # back into an earlier stage: the later one goes
    assert steps(tmp_path) == first
    run(tmp_path, ("stage1", 30, 0, 10))
    assert steps(tmp_path) == first[:1]


def test_resume_hides_the_later_events_in_tensorboard(tmp_path):
    run(tmp_path, ("stage1", 30, 0, 30)).close()
    run(tmp_path, ("stage1", 30, 20, 30)).close()
    starts = [
        e.step for e in events(tmp_path / "tensorboard" / "stage1") if e.HasField("session_log")
    ]
    assert starts == [1, 21]  # TensorBoard discards what earlier files hold from these steps on


def test_torn_last_line_is_passed_over(tmp_path):
    run(tmp_path, ("stage1", 30, 0, 20))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"stage": "stage1", "step": 3\xe2')
    log = Log(tmp_path)
    log.curves()
    log.stage("stage1", 30, 20)
    log.write(30, {"loss": 1.0})
    assert steps(tmp_path) == [("stage1", 10), ("stage1", 20), ("stage1", 30)]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_stops_the_run_after_it_is_recorded(tmp_path, value):
    log = run(tmp_path, ("stage3", 50, 0, 10))
    with pytest.raises(
        FloatingPointError, match=f"stage3, step 20: text_loss is {value}.*checkpoint.*lower"
    ):
        log.write(20, {"loss": 1.0, "text_loss": value})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text  # JSON knows neither
    assert records(tmp_path)[-1]["text_loss"] is None and records(tmp_path)[-1]["loss"] == 1.0
    found = [
        v
        for e in events(tmp_path / "tensorboard" / "stage3")
        for v in e.summary.value
        if e.step == 20
    ]
    assert len(found) == 2
    log.curves()
    log.stage("stage3", 50, 10)  # and a caller may go back and go on
    log.write(20, {"loss": 1.0})
    assert steps(tmp_path) == [("stage3", 10), ("stage3", 20)]


def test_progress_line(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    log = Log(tmp_path)
    log.stage("stage2", 1800, 100)
    # The first 10 steps take 60 s (compilation), the next 10 take 2 s: 1680 steps are left, at 5 a
    # second.
    for step, seconds in ((110, 60), (120, 2)):
        now[0] += seconds
        log.write(
            step, {"data_wait": 0.03, "generation_loss": 3.1, "text_loss": 1.2, "loss": 2.314}
        )
    assert capsys.readouterr().out.splitlines() == [
        "stage2   110/1800  loss 2.314  text 1.20  image 3.10  0.167 steps/s  data wait 3%",
        "stage2   120/1800  loss 2.314  text 1.20  image 3.10  5 steps/s  data wait 3%  left 5:36",
    ]


def test_progress_on_a_terminal_stays_on_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    log = Log(tmp_path)
    log.stage("stage1", 99)
    for step in (1, 2):
        log.write(
            step,
            {"loss": 2.0, "text_loss": 1.0, "grad_norm": 1.0, "learning_rate": 1e-3, "fill": 0.9},
        )
    log.say("saved")
    out = capsys.readouterr().out
    assert out.count("\r") == 2 and out.endswith("\nsaved\n") and out.count("\n") == 2
    assert all(len(line) < 60 for line in out.replace("\r", "\n").split("\n"))
    assert "loss 2.000" in out and "steps/s" in out and "fill" not in out


def test_the_progress_line_tells_rates_briefly_and_keeps_the_loss_longest(
    tmp_path, capsys, monkeypatch
):
    metrics = {
        "loss": 2.0,
        "grad_norm": 1.0,
        "fill": 0.9,
        "grad_norm/transformer": 0.7,
        "step_seconds": 0.1,
    }
    metrics |= {
        "tokens_per_second": 41234.0,
        "images_per_second": 7.0,
        "tflops": 310.0,
        "mfu": 0.314,
    }
    log = Log(tmp_path)
    log.stage("stage1", 99)
    log.write(1, metrics | {"data_wait": 0.02})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("stage1   1/99  loss 2.000  grad 1.00  fill 90%")
    assert line.endswith(" steps/s  41.2k tokens/s  MFU 31.4%  data wait 2%")
    log.write(2, {"loss": 2.0, "images_per_second": 1234567.0, "tflops": 0.0123})
    assert "1.23M images/s  0.0123 TFLOP/s" in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    log.write(3, metrics | {"data_wait": 0.02})
    line = capsys.readouterr().out
    assert len(line) <= 60 and "loss 2.000" in line and "steps/s" in line and "left" in line
    assert "grad" not in line and "data wait" not in line


def test_other_processes_leave_nothing(tmp_path, capsys):
    log = Log(tmp_path / "run", active=False)
    log.stage("stage1", 10)
    log.write(1, {"loss": float("nan")})
    log.say("hello")
    log.curves()
    log.close()
    assert not (tmp_path / "run").exists() and capsys.readouterr().out == ""


def test_writing_before_a_stage_says_what_to_do(tmp_path):
    with pytest.raises(RuntimeError, match=r"call Log\.stage"):
        Log(tmp_path).write(1, {"loss": 1.0})


def test_an_output_that_is_gone_or_full_stops_nothing(tmp_path, monkeypatch):
    log = Log(tmp_path)
    full = open("/dev/full", "w")  # noqa: SIM115
    monkeypatch.setattr("sys.stdout", full)
    log.stage("a", 2)
    log.write(1, {"loss": 1.0})
    log.say("hello")
    log.close()
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space"):
        full.close()
    assert [
        json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ] == [1.0]


def test_records_that_a_full_disk_did_not_take_are_written_later(tmp_path, monkeypatch, capsys):
    log, write = Log(tmp_path), os.write
    log.stage("a", 5)
    room = [10]

    def full(descriptor, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(descriptor, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", full)
    log.write(1, {"loss": 1.0})
    log.write(2, {"loss": 2.0})
    room[0] = 10**6
    log.write(3, {"loss": 3.0})
    log.close()
    assert [
        json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ] == [
        1,
        2,
        3,
    ]
    assert capsys.readouterr().out.count("ERROR") == 1
