"""The toy's edits are scored exactly, beside copying and beside an edit without the words."""

import json

import numpy as np
from PIL import Image
from support.mesh import on_mesh

from janus_jax.data.toy import shapes
from janus_jax.eval import shapes_edits


def test_right_edits_copies_and_blind_ones_have_the_scores_that_they_should():
    some = shapes_edits.edits(40, 3)
    done = shapes_edits.shares_right(some, [edit.done(edit.cells[-1]) for edit in some], 0)
    assert all(row["right"] == row["cells"] == 1 for row in done.values())
    copied = shapes_edits.shares_right(some, [edit.before for edit in some], 0)
    for row in copied.values():
        assert row["right"] == row["copied right"] == 0
        assert np.allclose((row["cells"], row["copied"]), 8 / 9)
    unread = shapes_edits.shares_right(some, [None] * len(some), 0)
    assert unread["overall"]["right"] == unread["overall"]["cells"] == 0
    # One of two to four things is taken away; one of 16 is added to about two of six cells.
    chance = {task: row["chance"] for task, row in done.items()}
    assert 0.2 < chance["remove"] < 0.5 and 0.05 < chance["recolour"] < 0.3
    assert 0.005 < chance["add"] < 0.06


def test_the_command_draws_scores_and_shows(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--model=quickstart", f"--out={out}", "--count=1", "--cfg_scale=1"]
    with on_mesh():
        assert shapes_edits.main(words) == 0
    told = capsys.readouterr().out
    assert "recolour" in told and "copying" in told
    found = json.loads((out / "results.json").read_text())
    assert set(found) == {"recolour", "add", "remove", "overall"}
    with Image.open(out / "edits.png") as sheet:
        assert sheet.width > 6 * 4 * shapes.SIDE and sheet.height > 4 * shapes.SIDE
