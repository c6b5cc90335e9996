"""`janus-jax data caption` and `data score` as a user types them."""

import ast
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from support.labelled import CAPTIONS, files, opened, photos
from support.paths import ROOT

from janus_jax.config.schema import Dataset
from janus_jax.data.__main__ import main
from janus_jax.distributed import initialize
from janus_jax.sample import caption, label_commands


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """A process with one device. JAX has begun long before, and joins others only ahead of that."""
    monkeypatch.setattr(initialize, "initialize", lambda *_: None)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def flags_of(line: Dataset, folder, out, *more) -> list[str]:
    given = [f"--path={line.path}", f"--images={line.images}", f"--model={folder}", f"--out={out}"]
    return [*given, "--batch=4", *more]


def said_line(out: str) -> Dataset:
    return Dataset(**ast.literal_eval(out.splitlines()[-1].partition(": ")[2]))


def test_captions_are_written_once_and_read_as_the_command_says(folder, tmp_path, capsys):
    line = photos(tmp_path, 6)
    (tmp_path / "photos" / "3.png").unlink()
    flags = flags_of(line, folder, tmp_path / "out", "--max_new_tokens=6", "--question=what?")
    assert main(["caption", *flags]) == 0
    told = capsys.readouterr().out
    assert '5 records with "recaption", 1 could not be used (bad_records.jsonl)' in told
    read = opened(said_line(told))
    written = [json.loads(x) for x in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    assert [record["number"] for record in written] == [0, 1, 2, 4, 5]
    assert [read[i]["captions"] for i in range(5)] == [[r["recaption"]] for r in written]
    assert [record["caption"] for record in written[:3]] == CAPTIONS[:3]
    before = (tmp_path / "out" / "records.jsonl").stat().st_mtime_ns
    assert sorted(files(tmp_path / "out")) == [
        "bad_records.jsonl",
        "records.jsonl",
        "settings.json",
    ]
    assert main(["caption", *flags]) == 0
    assert capsys.readouterr().out == told
    assert before == (tmp_path / "out" / "records.jsonl").stat().st_mtime_ns
    assert main(["caption", *flags, "--seed=1"]) == 2
    assert "result of other settings" in capsys.readouterr().err


def test_scores_come_with_a_line_that_keeps_three_quarters(folder, tmp_path, capsys):
    line = photos(tmp_path, 8)
    flags = flags_of(line, folder, tmp_path / "out", "--kind=understanding", "--prompt=what is it?")
    assert main(["score", *flags]) == 0
    told = capsys.readouterr().out
    found = said_line(told)
    assert found.score == "score" and found.prompt == ("what is it?",)
    assert len(opened(found)) == 6
    assert main(["score", *flags_of(found, folder, tmp_path / "two", "--kind=understanding")]) == 3
    assert 'has a field "score" already' in capsys.readouterr().err


def test_a_folder_of_pictures_without_captions_is_captioned(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(label_commands, "load_here", lambda f: (None, None))
    told = lambda model, processor, some, **how: [f"photo {i}" for i, _ in some]
    monkeypatch.setattr(caption, "captions_of", told)
    line = photos(tmp_path, 4)
    flags = ["--limit=3", f"--path={line.images}", f"--model={folder}", f"--out={tmp_path / 'out'}"]
    assert main(["caption", *flags, "--max_new_tokens=4"]) == 0
    read = opened(said_line(capsys.readouterr().out))
    assert [read[i]["captions"] for i in range(3)] == [[f"photo {i}"] for i in range(3)]
    assert main(["score", *flags]) == 3
    assert "no .txt or .json with its caption beside any" in capsys.readouterr().err


def test_a_function_of_ones_own_scores(tmp_path, capsys, monkeypatch):
    (tmp_path / "brightness.py").write_text(
        "def of(pictures, captions):\n    return [sum(p.getpixel((0, 0))) for p in pictures]\n"
    )
    monkeypatch.chdir(tmp_path)
    line = photos(tmp_path, 4)
    flags = [f"--path={line.path}", f"--images={line.images}", f"--out={tmp_path / 'out'}"]
    assert main(["score", *flags, "--scorer=brightness:of", "--field=bright"]) == 0
    found = said_line(capsys.readouterr().out)
    assert found.score == "bright" and len(opened(found)) == 3
    # The field of the pictures is the line's to name; what is written has them in "image".
    lines = pathlib.Path(line.path).read_text().replace('"image"', '"pic"')
    (pathlib.Path(line.images) / "named.jsonl").write_text(lines)
    flags = [f"--path={line.images}/named.jsonl", "--picture=pic", f"--out={tmp_path / 'named'}"]
    assert main(["score", *flags, "--scorer=brightness:of", "--field=bright"]) == 0
    found = said_line(capsys.readouterr().out)
    assert found.picture == "" and opened(found).image(0).size


@pytest.mark.parametrize(
    "command, more, why",
    [
        ("caption", [], "--model: missing"),
        ("caption", ["--model=quickstart", "--top_p=0"], "top_p is 0"),
        ("caption", ["--model=quickstart", "--question= "], "asks nothing"),
        ("caption", ["--model=quickstart", "--caption=a"], "there is no flag --caption"),
        ("score", ["--model=quickstart", "--scorer=a:b"], "--model: --scorer reads none of it"),
        ("score", ["--scorer=a"], "give module:function"),
        ("score", ["--kind=text", "--model=quickstart"], "one data set with pictures"),
        ("score", ["--path=shapes:", "--model=quickstart"], "it has no files"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path, capsys, command, more, why):
    line = photos(tmp_path, 2)
    given = [] if any("--path" in x for x in more) else [f"--path={line.path}"]
    assert main_or_exit([command, *given, f"--out={tmp_path / 'out'}", *more]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "out" / "settings.json").exists()


def main_or_exit(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as end:
        return end.code


def start(*words) -> subprocess.Popen:
    paths = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, "-m", "janus_jax.data", *map(str, words)]
    return subprocess.Popen(
        program, cwd=ROOT, env=os.environ | paths, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(child: subprocess.Popen) -> str:
    out = child.communicate()[0]
    assert child.returncode == 0, out
    return out


@pytest.mark.slow
@pytest.mark.processes
def test_a_kill_leaves_the_same_bytes(folder, tmp_path):
    line = photos(tmp_path, 90)
    (tmp_path / "photos" / "30.png").unlink()
    more = ["--max_new_tokens=8", "--temperature=1"]
    flags = lambda name: ["caption", *flags_of(line, folder, tmp_path / name, *more)]
    ended(start(*flags("whole")))
    log = tmp_path / "killed" / "labels-0.jsonl"
    with start(*flags("killed")) as child:
        until = time.monotonic() + 300
        while child.poll() is None and time.monotonic() < until:
            if log.is_file() and log.read_bytes().count(b"\n") >= 3:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
    done = log.read_bytes().count(b"\n")
    assert 3 <= done < 23
    assert "of 90 records" in ended(start(*flags("killed")))
    assert files(tmp_path / "whole") == files(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_leave_the_same_bytes_as_one(folder, tmp_path):
    line = photos(tmp_path, 30)
    (tmp_path / "photos" / "13.png").unlink()
    flags = lambda name: ["score", *flags_of(line, folder, tmp_path / name)]
    ended(start(*flags("one")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        joined = [f"--coordinator=127.0.0.1:{free.getsockname()[1]}", "--processes=2"]
    both = [start(*flags("two"), *joined, f"--process={k}") for k in range(2)]
    first, second = map(ended, both)
    assert "16 of 16 records" in first and "14 of 14 records" in second
    assert files(tmp_path / "one") == files(tmp_path / "two")
