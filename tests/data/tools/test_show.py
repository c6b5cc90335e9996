"""What `show` prints, draws and writes of the first records."""

import dataclasses

import pytest
from PIL import Image
from support import tiny
from support.configs import QUICKSTART

from janus_jax.config.schema import Rows
from janus_jax.data.__main__ import main
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.tools import show


def test_the_command_passes_over_what_cannot_be_used_and_shows_the_rest(planted, tmp_path, capsys):
    flags = (f"--path={planted.path}", f"--images={planted.images}", "--kind=understanding")
    out = tmp_path / "shown.png"
    assert show.main([*flags, "--n=6", f"--out={out}"]) == 0
    told = capsys.readouterr().out
    assert "all.jsonl:1: " in told and told.count(" to predict\n") == 6
    assert "all.jsonl:5 cannot be used: " in told and "truncated.jpg" in told
    assert "this is astronaut" in told and str(out) in told
    assert "a row: 4096 tokens, " in told and "picture 1: 512 x 512, made 384 pixels long" in told
    with Image.open(out) as sheet:
        assert sheet.width == 1200 and sheet.height > 6 * 384
    assert show.main(["--kind=text", "--path=nowhere.txt", "--out=shown.pdf"]) == 2
    assert "must end with .html" in capsys.readouterr().err
    (tmp_path / "bad.jsonl").write_text('{"text": " "}\n')
    assert show.main(["--kind=text", f"--path={tmp_path}/bad.jsonl"]) == 3
    assert "bad.jsonl:1 cannot be used: " in capsys.readouterr().out
    assert show.main(["--kind=text", "--path=nowhere.txt"]) == 3
    assert "CANNOT BE OPENED\n" in capsys.readouterr().out


def test_a_packed_row_without_a_data_set_that_cannot_be_opened_says_so(tmp_path, capsys):
    out = tmp_path / "shown.html"
    closed = "--config.data.datasets.sentences.path=nowhere.jsonl"
    assert show.main([f"--config={QUICKSTART}", "--stage=stage3", closed, f"--out={out}"]) == 3
    told = capsys.readouterr().out
    assert "row 1 of step 1 of stage3" in told
    lost = "sentences: CANNOT BE OPENED, and packed rows are without it"
    assert lost in told and lost in out.read_text()


def test_stages_that_see_records_alike_are_shown_once():
    alike = ExampleEncoder(tiny.processor(), tiny.CONFIG, Rows(1, 192, 2, 2), "all")
    answers = dataclasses.replace(alike, supervise="answers")
    encoders = {"one": alike, "two": alike, "three": answers}
    stages = lambda kind: [names for names, _ in show.alike(kind, encoders)]
    assert stages("understanding") == [["one", "two"], ["three"]]
    assert stages("generation") == [["one", "two", "three"]]  # its image alone is predicted


def test_help_lists_all_flags_of_every_command_with_what_they_are_for(capsys):
    for name in ("check", "convert", "tokenize", "show"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        told = capsys.readouterr().out
        for flag in (
            "--config",
            "--dataset",
            "--kind",
            "--path",
            "--images",
            "--min_side",
            "--out",
        ):
            assert f"  {flag}=" in told, (name, flag)
        assert "the folder that records name pictures in" in told
        assert f"janus_jax.data {name} --" in told.partition("example:")[2]
