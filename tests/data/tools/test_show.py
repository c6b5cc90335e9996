"""What `show` prints and draws of the first records."""

import numpy as np
import pytest
from PIL import Image
from support import tiny

from janus_jax.config.schema import Rows
from janus_jax.data.__main__ import main
from janus_jax.data.row_stream import ExampleEncoder
from janus_jax.data.tools import show


@pytest.mark.parametrize("supervise, stretches", [("all", 8), ("answers", 4)])
def test_tokens_are_text_with_image_slots_and_targets_marked(supervise, stretches):
    encoder = ExampleEncoder(tiny.processor(), tiny.CONFIG, Rows(1, 192, 2, 2), supervise)
    for task in ("understanding", "generation"):
        example = encoder(task, tiny.sources()[task][0], np.random.default_rng(0))
        text = show.as_text(example, tiny.processor().tokenizer)
        assert text.count("[16 x image]") == 1 and text.startswith("<｜begin▁of▁sentence｜>")
        assert text.count("«") == text.count("»") >= 1
        assert ("«[16 x image]»" in text) == (task == "generation")
        unmarked = text.replace("«", "").replace("»", "")
        assert "<begin_of_image>[16 x image]<end_of_image>" in unmarked
        if task == "understanding":
            assert text.count("«") == stretches and "«User" not in text


def test_the_command_passes_over_what_cannot_be_used_and_draws_the_rest(planted, tmp_path, capsys):
    flags = (f"--path={planted.path}", f"--images={planted.images}", "--kind=understanding")
    out = tmp_path / "shown.png"
    assert show.main([*flags, "--count=6", f"--out={out}"]) == 0
    told = capsys.readouterr().out
    assert "all.jsonl:1: " in told and told.count(" to predict") == 6
    assert "all.jsonl:5 cannot be used: " in told and "truncated.jpg" in told
    assert "this is astronaut" in told and str(out) in told
    with Image.open(out) as sheet:
        assert sheet.width > 4 * 384
    assert show.main(["--kind=text", "--path=nowhere.txt"]) == 3
    assert "CANNOT BE OPENED" in capsys.readouterr().out


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
