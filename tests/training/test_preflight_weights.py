"""Room on the disk, checkpoints to go on from, weights and tokenizers, looked at before the first
step."""

import json
import os
import pathlib
import re
import shutil
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from support import configs, tiny
from support.mesh import on_mesh
from support.rehearsal import QUICKSTART, TINY, refusal, rehearsed

from janus_jax.checkpoint import checksums, inspect
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.common.text import size
from janus_jax.config import read, schema
from janus_jax.config.optim import part_problems
from janus_jax.data.messages import SPECIALS
from janus_jax.training import preflight_disk, preflight_weights, run_dir

pytestmark = pytest.mark.usefixtures("traced_once", "weights")


# Work directories


def test_a_work_directory_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_disk.os, "access", lambda path, mode: path != tmp_path)
    told = refusal(schema.ConfigError, QUICKSTART, tmp_path / "run")
    assert f"{tmp_path} cannot be written into" in told
    _, (told,) = preflight_disk.place(pathlib.Path("gs://bucket/run"))
    assert "--workdir=gs:/bucket/run: an address, and files are written on this machine" in told


@pytest.mark.parametrize(
    "held, free, refused",
    [(0, 1.9, True), (0, 2.1, False), (1, 1.9, True), (2, 0.9, True), (2, 1.1, False)],
)
def test_room_for_two_checkpoints_or_for_the_next_one(held, free, refused, monkeypatch):
    """free: in checkpoints of the stage; to the end it takes three, and the weights."""
    e = read.read(TINY)[0]
    states, params = preflight_weights.shapes(e, 8)
    one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(inspect.leaves(states["only"])))
    monkeypatch.setattr(
        preflight_disk.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free * one)
    )
    start = {"only": inspect.StageProgress(held=held, step=4 if held else None)}
    said, problems, warnings = preflight_disk.room(pathlib.Path("w"), e, states, params, start)
    assert bool(problems) == refused and bool(warnings) != refused
    assert f"checkpoints of {size(one)} (only)" in said
    if refused:
        needed = size(one * (1 if held == 2 else 2))
        assert f"{size(free * one)} free in w, but only needs {needed}" in problems[0]


# Checkpoints, weights, tokenizers


def test_a_run_that_goes_on_says_from_which_step(begun, capsys):
    out = rehearsed(capsys, TINY, *begun)
    assert re.search("only +goes on from step 4 of 8", out) and "WARNING" not in out


def test_a_run_that_goes_on_with_changes_names_them_and_asks_for_a_word(copy, capsys, tmp_path):
    """A tokenizer that only lies elsewhere is no change, as long as a checkpoint knows it."""
    workdir, flags = copy
    other = flags | {"stages.only.optim.learning_rate": "5e-4", "stages.only.log_every": "3"}
    told = refusal(schema.ConfigError, TINY, workdir, other)
    named = "stages.only.optim.learning_rate: 0.001 -> 0.0005"
    assert "--accept_changes goes on from its last checkpoint" in told and f"\n  {named}" in told
    assert "log_every" not in told
    out = rehearsed(capsys, TINY, workdir, other, accept=True)
    assert re.search(f"changed +{named}\n", out) and "goes on from step 4 of 8" in out
    assert re.search("changed +stages.only.log_every: 1 -> 3\n", out)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(pathlib.Path(flags["tokenizer"]) / "tokenizer.json", moved)
    assert f"tokenizer: '{flags['tokenizer']}' -> '{moved}'" in refusal(
        schema.ConfigError, TINY, workdir, {"tokenizer": str(moved)}
    )
    place = workdir / "checkpoints" / "only" / "4" / inspect.POSITION
    place.parent.mkdir()
    known = {"fingerprint": {"tokenizer": tiny.processor().tokenizer.fingerprint}}
    place.write_text(json.dumps(known))
    found = run_dir.changes_since(read.read(TINY, {"tokenizer": str(moved)})[0], workdir)
    (line,) = found.free
    assert line.endswith("(the same file)") and not found.refused


def test_weights_to_begin_with_need_not_be_there_any_more(begun, monkeypatch, capsys):
    monkeypatch.setenv("WEIGHTS", str(begun[0].parent / "weights") + "/../weights")
    shutil.move(begun[0].parent / "weights" / WEIGHTS_FILE, begun[0].parent / "aside")
    try:
        told = refusal(schema.ConfigError, TINY, begun[0].parent / "new", begun[1])
        assert "stages.only.init" in told
        monkeypatch.setenv("WEIGHTS", str(begun[0].parent / "weights"))
        assert "goes on from step 4" in rehearsed(capsys, TINY, *begun)
    finally:
        shutil.move(begun[0].parent / "aside", begun[0].parent / "weights" / WEIGHTS_FILE)


def test_damaged_checkpoints_are_passed_over_until_none_is_left(copy, capsys):
    workdir, flags = copy
    for step, next_ in ((4, "goes on from step 3 of 8"), (3, None)):
        os.truncate(workdir / "checkpoints" / "only" / str(step) / "state" / "arrays", 5)
        if next_:
            out = rehearsed(capsys, TINY, workdir, flags)
            assert (
                next_ in out
                and f"WARNING: {workdir}" in out
                and "has 5 bytes, 100 were written" in out
            )
    told = refusal(inspect.CheckpointsDamaged, TINY, workdir, flags)
    assert "every checkpoint is damaged" in told and "step 4: " in told and "step 3: " in told


@pytest.mark.parametrize("rotten", ['{"a": 2}', '{"a": 1)'])
def test_a_checkpoint_whose_position_in_the_data_has_changed_is_passed_over(rotten, copy, capsys):
    """Of the same size, so that only its sum tells; as JSON it may be sound or not."""
    workdir, flags = copy
    step = workdir / "checkpoints" / "only" / "4"
    (step / "data").mkdir()
    (step / inspect.POSITION).write_text('{"a": 1}')
    checksums.write(
        step,
        {
            key: x
            for key, x in checksums.read_manifest(step).items()
            if key not in ("files", "crc32")
        },
    )
    assert inspect.damage(step, deep=False) == []
    (step / inspect.POSITION).write_text(rotten)
    out = rehearsed(capsys, TINY, workdir, flags)
    assert "goes on from step 3 of 8" in out and "data/metadata: its bytes have changed" in out


def test_checkpoints_of_another_run_and_of_another_model_are_refused(copy):
    workdir, flags = copy
    other = flags | {"model.image_head_width": "64", "stages.only.init": "()"}
    told = refusal(schema.ConfigError, TINY, workdir, other)
    assert "model.image_head_width: 32 -> 64" in told
    for name in ("trainable", "opt_state.1.0.mu"):
        assert (
            f"{name}.image_head.fc2.kernel is float32 (32, 64) in the checkpoint, float32 (64, 64) "
            "here" in told
        )
    (workdir / "run").write_text("xyz")
    told = refusal(schema.ConfigError, TINY, workdir, flags)
    assert "only/4 is a checkpoint of run abc" in told and "is of run xyz" in told


def test_weights_of_another_model_are_refused_by_their_headers(files, tmp_path):
    flags = {
        "tokenizer": str(files / "weights"),
        "model.transformer.width": "64",
        "model.transformer.heads": "4",
    }
    told = refusal(schema.ConfigError, TINY, tmp_path / "run", flags)
    assert "shape: text_embedding.table is (384, 32) in the file, (384, 64) in the model" in told
    flags = {"tokenizer": str(files / "weights"), "model.transformer.heads": "4"}
    with on_mesh(1, 2, 1):  # another that happens to be set
        told = refusal(schema.ConfigError, TINY, tmp_path / "run", flags)
    assert "transformer.heads is 8 there, 4 here" in told


def test_another_tokenizer_than_the_weights_know_is_refused(files, tmp_path, capsys):
    """A pad two ids further, as 100002 and 100015 are of two releases."""
    values = json.loads((files / "weights" / "tokenizer.json").read_text())
    vocabulary, pad = values["model"]["vocab"], SPECIALS["pad"]
    other = next(text for text, i in vocabulary.items() if i == 40)
    vocabulary[pad], vocabulary[other] = 40, 2
    next(token for token in values["added_tokens"] if token["content"] == pad)["id"] = 40
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    flags = {"tokenizer": str(tmp_path)}
    told = refusal(schema.ConfigError, TINY, tmp_path / "run", flags)
    ours, theirs = tmp_path / "tokenizer.json", files / "weights"
    for words in (
        f"stages.only.init: {theirs} was trained with another tokenizer",
        f"pad ({pad}) is 40 here, 2 there",
        "2 tokens have other ids",
        f"this run's is {ours}",
    ):
        assert words in told
    (tmp_path / "tokenizer.json").unlink()
    shutil.copy(theirs / "tokenizer.json", tmp_path)
    assert "the run can begin" in rehearsed(capsys, TINY, tmp_path / "run", flags)


def test_a_rate_of_a_part_that_does_not_learn_is_refused():
    """It would change nothing."""
    path = "stages.stage2"
    learns = ("transformer", "discriminator")
    o = schema.Optim(
        {"default": 1.0, "discriminator": 2.0, "trasformer": 1.0}, weight_decay={"text_head": 0.0}
    )
    one, two = part_problems(path, o, learns)
    assert one.startswith(f"{path}.optim.learning_rate.trasformer: the stage trains no")
    assert "did you mean 'transformer'" in one and f"{path}.optim.weight_decay.text_head" in two


def test_missing_files_are_named(tmp_path):
    lines = configs.refusal(
        {"stages.stage1.init": "no/weights", "tokenizer": "no/tokenizer"}, files=True
    )
    assert len(lines) == 2  # the data's are looked for as they are opened, see test_catalog.py
    assert "no tokenizer.json in no/tokenizer" in lines[0]
    assert (
        lines[1].startswith("stages.stage1.init: ") and "no/weights: no such path here" in lines[1]
    )
    save_file(
        {"generation_embedding.table": np.zeros((64, 8), np.float32)},
        tmp_path / "model.safetensors",
    )
    configs.checked({"stages.stage1.init": str(tmp_path)}, files=True)
    save_file({"lm_head.weight": np.zeros((64, 8), np.float32)}, tmp_path / "model.safetensors")
    assert all(
        str(tmp_path) in x
        for x in configs.refusal({"stages.stage1.init": str(tmp_path)}, files=True)
    )
