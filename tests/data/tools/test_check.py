"""What `check` tells of data sets, as plain data and as a command."""

import json
import subprocess
import sys
import types

import pytest
from PIL import Image
from support.configs import QUICKSTART
from support.paths import ROOT
from support.planted import FAULTS, PLANTED, start

from janus_jax.config.read import read
from janus_jax.config.schema import Dataset
from janus_jax.data.sources import SourceError
from janus_jax.data.tools import check, command

OPTIONS = types.SimpleNamespace(tokenizer="", records=0, threads=2, out="")


def test_check_names_every_fault_and_every_picture_that_is_there_twice(planted, tmp_path):
    told = []
    options = types.SimpleNamespace(**vars(OPTIONS) | {"out": str(tmp_path)})
    found = check.check({"mine": planted}, None, [], options, told.append)
    mine, text = found["datasets"]["mine"], "\n".join(told)
    assert (mine["records"], mine["usable"], *check.unusable(found)) == (16, 8, 8, 0)
    listed = [
        json.loads(line) for line in (tmp_path / "bad_records.jsonl").read_text().splitlines()
    ]
    assert {line["where"]: line["cause"] for line in listed} == {
        f"all.jsonl:{n}": c for n, c in FAULTS.items()
    }
    for name, cause in PLANTED:
        assert cause is None or f"{name}: " in text
    assert mine["duplicates"]["pictures"]["groups"] == [["all.jsonl:4", "all.jsonl:9"]]
    assert mine["pictures"]["unusual"] == ["all.jsonl:11: JPEG CMYK", "all.jsonl:12: 1x5000"]
    assert mine["pictures"]["height"]["max"] == 5000
    assert json.loads((tmp_path / "report.json").read_text()) == found
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.width > 5 * 384 and sheet.height > 384


def test_check_counts_text_and_repeats_by_record(tmp_path):
    texts = ["to be", "or not", "to be", "that is the question " * 2000]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    found = check.check(
        {"a": Dataset("text", str(tmp_path / "a.jsonl"))}, None, [], OPTIONS, lambda _: None
    )
    a = found["datasets"]["a"]
    assert a["duplicates"]["records"]["groups"] == [["a.jsonl:1", "a.jsonl:3"]]
    assert a["different_texts"] == 3
    of = a["tokens"]
    assert of["text"]["max"] > 8000 and (of["cut"], of["continued"]) == (0, 1)
    assert "pictures" not in a


def test_check_tells_how_records_were_understood_and_what_nothing_reads(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    records = [{"image": "a.png", "text": f"a cat {k}", "id": k} for k in range(3)]
    records += [{"image": "a.png", "captions": ["a", " "], "caption": "b"}, {"text": "no picture"}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    told = []
    line = Dataset("generation", str(tmp_path / "a.json"))
    found = check.check({"a": line}, None, [], OPTIONS, told.append)["datasets"]["a"]
    assert found["left_out"] == {"not of kind generation": 1}
    blank = 'blank alternatives left out of "captions"'
    assert found["understood"] == {'caption from "text"': 3, 'caption from "captions"': 1, blank: 1}
    assert found["unread_fields"] == {"id": 3, "caption": 1}
    text = "\n".join(told)
    assert "left out when the data set is opened: not of kind generation (1)" in text
    assert (
        f'understood as: caption from "text" (3), caption from "captions" (1), {blank} (1)' in text
    )
    assert "fields that nothing reads: id (3), caption (1)" in text


def test_what_is_held_out_is_looked_at_too_and_told_where_it_is_trained_on(tmp_path):
    for k in range(4):
        Image.new("RGB", (9, 8), (9 * k, 0, 0)).save(tmp_path / f"{k}.png")
    for name, pictures in (("train", [0, 1, 2]), ("val", [3, 1, 7]), ("twice", [0, 1, 0, 1])):
        lines = [{"image": f"{k}.png", "question": f"{name}?", "answer": "yes"} for k in pictures]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def checked(path, holdout):
        line = {"path": str(tmp_path / path), "holdout": holdout}
        overrides = {f"data.datasets.questions.{name}": x for name, x in line.items()}
        experiment, _ = read(QUICKSTART, overrides)
        lines = {"questions": experiment.data.datasets["questions"]}
        told = []
        return check.check(lines, experiment, ["stage3"], OPTIONS, told.append), "\n".join(told)

    found, text = checked("train.jsonl", str(tmp_path / "val.jsonl"))
    assert found["datasets"]["questions.holdout"]["usable"] == 2 and check.unusable(found) == (1, 0)
    (told,) = found["leaks"]
    assert "questions.holdout: of 2 held-out records 1 show what is trained on too" in told
    assert "val.jsonl:2, which is train.jsonl:2 of questions" in told and f"WARNING: {told}" in text
    (told,) = checked("twice.jsonl", "1")[0]["leaks"]  # each picture is there twice
    assert "of 1 held-out records 1 show" in told
    assert checked("train.jsonl", "1")[0]["leaks"] == checked("twice.jsonl", "0")[0]["leaks"] == []


def test_epochs_are_those_of_what_is_trained_on_alone(tmp_path, monkeypatch):
    """Half is held out, so that each of the others comes twice as often."""
    for name, few in (("STREAMS", 1), ("WARM", 1), ("STEPS", 9)):
        monkeypatch.setattr(check.forecast, name, few)
    lines = [{"text": f"a text about {k}"} for k in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def epochs(holdout):
        own = {"path": str(tmp_path / "a.jsonl"), "holdout": holdout}
        shares = {"understanding": "0", "text": "1", "generation": "0"}
        experiment, _ = read(
            QUICKSTART,
            {f"data.datasets.sentences.{name}": value for name, value in own.items()}
            | {f"stages.stage3.ratio.{kind}": share for kind, share in shares.items()},
        )
        lines = {"sentences": experiment.data.datasets["sentences"]}
        found = check.check(lines, experiment, ["stage3"], OPTIONS, lambda text: None)
        return found["stages"]["stage3"][0]["datasets"]["sentences"]["epochs"]

    assert epochs("10") == pytest.approx(2 * epochs("0"), rel=0.05)


def test_what_a_terminal_would_obey_in_names_of_fields_is_told_and_not_done(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps([{"text": "x", "\x1b[31m\u202e": 1}]))
    assert check.main(["--kind=text", f"--path={tmp_path}/a.json"]) == 0
    assert "fields that nothing reads: \\x1b[31m\\u202e (1)" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_costs_the_report_one_line(plain, monkeypatch):
    def refuse(sources):
        raise SourceError("photos: Permission denied")

    monkeypatch.setattr(check.unread, "unread", refuse)
    told = []
    assert check.check({"mine": plain}, None, [], OPTIONS, told.append)["datasets"]["mine"][
        "usable"
    ]
    assert "which files no record reads is not known: photos: Permission" in told[-1]


@pytest.mark.processes
def test_check_of_a_config_forecasts_its_stages_and_ends_with_code_3(planted, tmp_path):
    (tmp_path / "mine.py").write_text(f"""
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    config.data = {{"datasets": {{
        "see": {{"kind": "understanding", "path": {planted.path!r}, "images": {planted.images!r}}},
        "read": {{"kind": "text", "path": "shapes:"}},
        "draw": {{"kind": "generation", "path": "shapes:"}},
        "gone": {{"kind": "generation", "path": "nowhere/*.tar"}},
    }}}}
    return config
""")
    done = start(
        "check",
        f"--config={tmp_path}/mine.py",
        "--stage=stage2",
        "--records=40",
        "--config.seed=3",
    )
    told, errors = done.communicate(timeout=120)
    assert done.returncode == 3, errors
    assert "[blank caption] all.jsonl:13" in told and "nowhere/*.tar: no such file" in told
    assert "stage2, steps 0 to" in told and "stage3, steps" not in told
    assert "unusable records: 8; data sets that cannot be opened: 1" in told


@pytest.mark.processes
@pytest.mark.parametrize("tool", ["check", "to_array_record", "show"])
def test_a_command_about_data_does_not_import_jax(tool, plain, tmp_path):
    """Grain imports it where it is installed: seconds, and notes of its plugins on stderr."""
    words = ["--kind=generation", f"--path={plain.path}", f"--images={plain.images}"]
    words += [f"--out={tmp_path}/out{'.html' if tool == 'show' else ''}"]
    program = (
        "import sys\n"
        f"from janus_jax.data.tools import {tool}\n"
        f"code = {tool}.main({words})\n"
        "print(code, [name for name in ('jax', 'grain') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


def test_where_nothing_can_be_written_nothing_is_read(plain, tmp_path):
    (tmp_path / "file").write_text("x")
    options = types.SimpleNamespace(**vars(OPTIONS) | {"out": str(tmp_path / "file")})
    with pytest.raises(command.CommandError, match=r"--out=.*file: File exists; name a directory"):
        check.check({"mine": plain}, None, [], options, pytest.fail)
