"""Before the first step: every shipped config passes, every broken one is told with all its faults; nothing is left."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import threading
import types

import jax
import pytest
import tiny
import two_processes
from conftest import on_mesh
from flax import nnx
from PIL import Image

from janus_jax import checkpoint, checksums, experiment, main, opening, preflight, steps, stored
from janus_jax import weights as plain_weights
from janus_jax.checksums import paths
from janus_jax.data import catalog
from janus_jax.data.sources import SourceError
from janus_jax.data.tokenizer import SPECIALS

ROOT = pathlib.Path(__file__).parent.parent
QUICKSTART = str(ROOT / "configs" / "quickstart.py")
TINY = str(ROOT / "tests" / "two_processes.py")
SHIPPED = [
    *(path.name for path in sorted((ROOT / "configs").glob("*.py"))),
    "stage2.py:v5p:4x4x8",
    "pro_7b_stage3.py:h100:64",
]
DEVICES = {"stage2.py:v5p:4x4x8": 128, "pro_7b_stage3.py:h100:64": 64}


@pytest.fixture
def large_disk(monkeypatch):
    """What 7B models write fits on it."""
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=int(1e13)))


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Most configs have the same few models."""
    known, plain = {}, stored.abstract

    def abstract(model):
        key = dataclasses.replace(model, remat="none"), jax.sharding.get_abstract_mesh()
        if key not in known:
            known[key] = plain(model)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "abstract", abstract)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`weights` of the tiny model, with its tokenizer."""
    directory = tmp_path_factory.mktemp("files")
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(two_processes.MODEL)))
        plain_weights.export(directory / "weights", params, two_processes.MODEL, tiny.processor())
    return directory


@pytest.fixture(autouse=True)
def weights(files, monkeypatch):
    """What the tiny config begins with; and time enough on a machine that is busy."""
    monkeypatch.setenv("WEIGHTS", str(files / "weights"))
    monkeypatch.setattr(preflight, "LIMIT", 600.0)


def rehearsed(capsys, config, workdir, overrides=None, devices=0) -> str:
    """What a dry run prints; it leaves no trace in the work directory."""
    there = sorted(workdir.rglob("*")) if workdir.exists() else None
    try:
        preflight.rehearse(config, overrides or {}, workdir, devices)
    finally:
        assert (sorted(workdir.rglob("*")) if workdir.exists() else None) == there
    return capsys.readouterr().out


def refusal(kind, config, workdir, overrides=None, devices=0) -> str:
    with pytest.raises(kind) as error:
        preflight.rehearse(config, overrides or {}, workdir, devices)
    return str(error.value)


def hollow(path: pathlib.Path, shapes: dict):
    """A weights file of the right header and size that takes no room on the disk."""
    header, at = {}, 0
    for name, x in shapes.items():
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [at, at + 4 * x.size]}
        at += 4 * x.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


# What is sound


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_passes_where_its_files_are(name, tmp_path, capsys, large_disk):
    """Its data replaced by drawn shapes, its weights by hollow files of the right shapes."""
    config = str(ROOT / "configs" / name)
    e, _ = experiment.read(config)
    overrides, devices = {}, DEVICES.get(name, 8)
    for key, line in e.data.datasets.items():
        if not line.path.startswith(("shapes:", "emoji:")):
            new = dict(path="shapes:", images="", names="", format="", min_side="0", score="", image_ids="")
            overrides |= {f"data.datasets.{key}.{field}": value for field, value in new.items()}
    if e.tokenizer:
        overrides["tokenizer"] = str(tmp_path)
        tiny.processor().tokenizer.save(tmp_path)
    for stage, column in e.stages.items():
        if column.init and column.init != ("previous",):
            _, params = stored.states(e, devices)
            hollow(tmp_path / "weights" / plain_weights.FILE, plain_weights.flatten(params))
            overrides[f"stages.{stage}.init"] = str(tmp_path / "weights")
    out = rehearsed(capsys, config, tmp_path / "run", overrides, devices)
    assert "the run can begin" in out and "WARNING" not in out
    for words in (
        f"mesh {'x'.join(map(str, mesh(e, devices)))}",
        "parameters",
        "tokenizer",
        "checkpoints of",
    ):
        assert words in out
    assert all(f"{key}: {line.kind}, " in out for key, line in opening.needed(e).items())
    assert all(f"\n{stage} " in out for stage in e.stages)


def mesh(e, devices):
    return preflight.sh.mesh_shape(e.mesh.data, e.mesh.fsdp, e.mesh.tensor, devices)


def test_a_shipped_config_without_its_files_names_every_path(tmp_path):
    told = refusal(experiment.ConfigError, str(ROOT / "configs" / "stage2.py"), tmp_path / "run")
    for words in (
        "tokenizer: no tokenizer.json in runs/stage1/stage1",
        "stages.stage2.init: runs/stage1/stage1",
        "data.datasets.imagenet: data/imagenet/train",
        "data.datasets.text: data/text/*.parquet",
    ):
        assert words in told
    assert not (tmp_path / "run").exists()


# What is not


BROKEN = [  # overrides of the quick start on 8 devices; the error, and what it says
    ({"sed": "1", "stages.stage2.optim.learning_rate": "-1"}, 2, ["did you mean 'seed'", "learning_rate is -1.0"]),
    ({"stages.stage1.optim.warmup_steps": "61", "stages.stage2.steps": "0"}, 2, ["longer than the 60", "is 0"]),
    ({"stages.stage2.accumulate": "0", "stages.stage1.checkpoint_every": "0"}, 2, ["accumulate is 0", "every is 0"]),
    ({"mesh.data": "3", "mesh.fsdp": "2"}, 2, ["3x2x1=6 of 8 devices"]),
    ({"mesh.tensor": "8"}, 2, ["model.transformer.heads is 4", "mesh.tensor = 4"]),
    ({"stages.stage2.rows.count": "12"}, 2, ["8 must divide it; nearest: 8 or 16"]),
    ({"model.transformer.vocabulary": "256"}, 2, ["vocabulary is 256: the tokenizer has "]),
    ({"checkpoints.keep": "1"}, 2, ["checkpoints.keep is 1"]),
    ({"tokenizer": "no/such"}, 2, ["tokenizer: no tokenizer.json in no/such"]),
    ({"stages.stage1.init": "./no/such"}, 2, ["stages.stage1.init: no/such: no weights directory"]),
    ({"data.datasets.scenes.path": "gone/*.tar", "data.datasets.questions.path": "gone.json"}, 3,
     ["data.datasets.scenes: gone/*.tar", "data.datasets.questions: gone.json"]),
    ({"data.datasets.scenes.path": "gone", "seed": "-1"}, 2, ["seed is -1", "data.datasets.scenes: gone"]),
]  # fmt: skip


@pytest.mark.parametrize("overrides, code, words", BROKEN, ids=[", ".join(case[0]) for case in BROKEN])
def test_what_a_config_says_wrong_is_told_at_once(overrides, code, words, tmp_path):
    with pytest.raises(ValueError) as error:
        preflight.prepare(QUICKSTART, overrides, tmp_path / "run")
    told = refusal(ValueError, QUICKSTART, tmp_path / "run", overrides)
    assert str(error.value) == told and main.exit_code(error.value) == code
    assert [word for word in words if word not in told] == []
    assert not (tmp_path / "run").exists()


def test_a_data_set_none_of_whose_first_records_can_be_used_is_refused_and_a_few_are_told(tmp_path, capsys):
    good = {"image": "p.png", "caption": "a cat"}
    Image.new("RGB", (30, 20), "red").save(tmp_path / "p.png")
    path, overrides = tmp_path / "it.jsonl", {"data.datasets.scenes.path": str(tmp_path / "it.jsonl")}
    overrides["data.datasets.scenes.images"] = str(tmp_path)
    lines = [good | {"image": "gone.png"}] * 2 + [good]
    path.write_text("\n".join(map(json.dumps, lines)))
    out = rehearsed(capsys, QUICKSTART, tmp_path / "run", overrides)
    assert "data.datasets.scenes: stage1 cannot use its first 2 records, such as" in out and "gone.png" in out
    path.write_text("\n".join(map(json.dumps, lines[:2])))
    told = refusal(SourceError, QUICKSTART, tmp_path / "run", overrides)
    assert "data.datasets.scenes: stage1 can use none of its first 2 records" in told and "gone.png" in told


def test_a_data_set_that_takes_long_is_left_out_and_said(tmp_path, capsys, monkeypatch):
    waiting, plain = threading.Event(), catalog.open_datasets

    def slow(lines, *args, **kwargs):
        if "scenes" in lines:
            waiting.wait(30)
        return plain(lines, *args, **kwargs)

    monkeypatch.setattr(catalog, "open_datasets", slow)
    monkeypatch.setattr(preflight, "LIMIT", 1.0)
    try:
        out = rehearsed(capsys, QUICKSTART, tmp_path / "run")
    finally:
        waiting.set()
    assert (
        "WARNING: data.datasets.scenes: NOT LOOKED AT" in out
        and "questions: understanding, 1,000,000 records" in out
    )
    assert "nothing that was looked at is wrong" in out


# Work directories


def test_another_runs_work_directory_and_a_foreign_one_are_refused(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    assert "holds checkpoints but no config.json" in refusal(experiment.ConfigError, QUICKSTART, run)
    plain = experiment.read(QUICKSTART)[0]
    (run / "config.json").write_text(json.dumps(preflight.identity._values(plain)))
    assert "seed: 0 -> 5" in refusal(experiment.ConfigError, QUICKSTART, run, {"seed": "5"})
    (run / "config.json").write_text("{")
    assert "cannot be read as the config of a run" in refusal(experiment.ConfigError, QUICKSTART, run)
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.json"]


def test_a_config_that_other_code_stored_gets_the_defaults_of_new_fields(tmp_path):
    plain, path = experiment.read(QUICKSTART)[0], tmp_path / "config.json"
    (tmp_path / "checkpoints").mkdir()
    values = preflight.identity._values(plain)
    for section, field in (
        (values, "seed"),
        (values["stages"]["stage1"], "spikes"),
        (values["data"], "workers"),
    ):
        del section[field]
    del values["model"]["transformer"]["rope_theta"], values["stages"]["stage2"]["optim"]["eps"]
    path.write_text(json.dumps(values))
    assert preflight.identity.problems(plain, tmp_path) == []
    other = dataclasses.replace(plain, seed=5)
    assert "undo:\n  seed: 0 -> 5" in preflight.identity.problems(other, tmp_path)[0]
    values["data"]["flavour"] = values["stages"]["stage1"]["colour"] = 3
    path.write_text(json.dumps(values))
    (told,) = preflight.identity.problems(plain, tmp_path)
    assert f"{path} was written by other code" in told
    assert "data.flavour: unknown field" in told and "stages.stage1.colour: unknown field" in told


def test_finished_stages_without_their_checkpoints_still_belong_to_their_config(tmp_path):
    plain = experiment.read(QUICKSTART)[0]
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / plain_weights.FILE).touch()
    (tmp_path / "config.json").write_text(json.dumps(preflight.identity._values(plain)))
    assert "seed: 0 -> 5" in refusal(experiment.ConfigError, QUICKSTART, tmp_path, {"seed": "5"})


@pytest.mark.parametrize("below", [False, True])
def test_a_work_directory_that_is_a_file_or_below_one(tmp_path, below):
    (tmp_path / "file").touch()
    workdir = tmp_path / "file" / "run" if below else tmp_path / "file"
    assert f"{tmp_path / 'file'} is a file" in refusal(experiment.ConfigError, QUICKSTART, workdir)


def test_a_work_directory_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(stored.os, "access", lambda path, mode: path != tmp_path)
    told = refusal(experiment.ConfigError, QUICKSTART, tmp_path / "run")
    assert f"{tmp_path} cannot be written into" in told


@pytest.mark.parametrize(
    "held, free, refused", [(0, 1.9, True), (0, 2.1, False), (1, 1.9, True), (2, 0.9, True), (2, 1.1, False)]
)
def test_room_for_two_checkpoints_or_for_the_next_one(held, free, refused, monkeypatch):
    """free: in checkpoints of the stage; to the end it takes three, and the weights."""
    e = experiment.read(TINY)[0]
    states, params = stored.states(e, 8)
    one = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(checkpoint.leaves(states["only"])))
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free * one))
    start = {"only": stored.Start(held=held, step=4 if held else None)}
    said, problems, warnings = stored.room(pathlib.Path("w"), e, states, params, start)
    size = preflight.stored.size
    assert bool(problems) == refused and bool(warnings) != refused
    assert f"checkpoints of {size(one)} (only)" in said
    if refused:
        needed = size(one * (1 if held == 2 else 2))
        assert f"{size(free * one)} free in w, but only needs {needed}" in problems[0]


@pytest.mark.parametrize("trained", [False, True])
def test_a_learned_tokenizer_that_was_cut_is_learned_again_while_nothing_needs_it(trained, tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    plain = experiment.read(QUICKSTART)[0]
    preflight.identity.same_run(plain, tmp_path)
    (tmp_path / "checkpoints" / "stage1" / ("7" if trained else ".saving-7")).mkdir(parents=True)
    found = preflight.Found(plain, sources=opening.open_sources(plain, [], None)[0])
    preflight._look_at_tokenizer(found, tmp_path, {}, {}, None)
    assert bool(found.config) == trained and bool(found.warnings) != trained
    if trained:
        assert "copy the file again" in found.config[0]
        return
    assert "it is learned again" in found.warnings[0]
    preflight.first_files(found, tmp_path)
    again = preflight.Found(plain, sources=found.sources)
    preflight._look_at_tokenizer(again, tmp_path, {}, {}, None)
    assert not again.learned and again.warnings == []
    assert again.processor.tokenizer.fingerprint == found.processor.tokenizer.fingerprint
    assert not list(tmp_path.glob("*.partial"))


# Checkpoints, weights, tokenizers


@pytest.fixture(scope="module")
def begun(files):
    """A work directory with checkpoints of steps 3 and 4 of the tiny config, and the flags of its run."""
    workdir = files / "begun"
    os.environ["WEIGHTS"] = str(files / "weights")
    flags = {"tokenizer": str(files / "weights")}
    e, _ = experiment.read(TINY, flags)
    preflight.identity.same_run(e, workdir)
    (workdir / "run").write_text("abc")
    state = stored.states(e, 8)[0]["only"]
    facts = {
        name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in paths(checkpoint.leaves(state))
    }
    for step in (3, 4):
        directory = workdir / "checkpoints" / "only" / str(step)
        (directory / "state").mkdir(parents=True)
        (directory / "state" / "arrays").write_bytes(b"\0" * 100)
        checksums.write(directory, {"step": step, "run": "abc", "leaves": facts})
    return workdir, flags


@pytest.fixture
def copy(begun, tmp_path):
    shutil.copytree(begun[0], tmp_path / "run")
    return tmp_path / "run", begun[1]


def test_a_run_that_goes_on_says_from_which_step(begun, capsys):
    out = rehearsed(capsys, TINY, *begun)
    assert "only       goes on from step 4 of 8" in out and "WARNING" not in out


def test_weights_to_begin_with_need_not_be_there_any_more(begun, monkeypatch, capsys):
    monkeypatch.setenv("WEIGHTS", str(begun[0].parent / "weights") + "/../weights")
    shutil.move(begun[0].parent / "weights" / plain_weights.FILE, begun[0].parent / "aside")
    try:
        told = refusal(experiment.ConfigError, TINY, begun[0].parent / "new", begun[1])
        assert "stages.only.init" in told
        monkeypatch.setenv("WEIGHTS", str(begun[0].parent / "weights"))
        assert "goes on from step 4" in rehearsed(capsys, TINY, *begun)
    finally:
        shutil.move(begun[0].parent / "aside", begun[0].parent / "weights" / plain_weights.FILE)


def test_damaged_checkpoints_are_passed_over_until_none_is_left(copy, capsys):
    workdir, flags = copy
    for step, next_ in ((4, "goes on from step 3 of 8"), (3, None)):
        os.truncate(workdir / "checkpoints" / "only" / str(step) / "state" / "arrays", 5)
        if next_:
            out = rehearsed(capsys, TINY, workdir, flags)
            assert next_ in out and f"WARNING: {workdir}" in out and "has 5 bytes, 100 were written" in out
    told = refusal(steps.CheckpointsDamaged, TINY, workdir, flags)
    assert "every checkpoint is damaged" in told and "step 4: " in told and "step 3: " in told


@pytest.mark.parametrize("rotten", ['{"a": 2}', '{"a": 1)'])
def test_a_checkpoint_whose_position_in_the_data_has_changed_is_passed_over(rotten, copy, capsys):
    """Of the same size, so that only its sum tells; as JSON it may be sound or not."""
    workdir, flags = copy
    step = workdir / "checkpoints" / "only" / "4"
    (step / "data").mkdir()
    (step / stored.POSITION).write_text('{"a": 1}')
    checksums.write(
        step, {key: x for key, x in checksums.read(step).items() if key not in ("files", "crc32")}
    )
    assert stored._damage(step) == []
    (step / stored.POSITION).write_text(rotten)
    out = rehearsed(capsys, TINY, workdir, flags)
    assert "goes on from step 3 of 8" in out and "data/metadata: its bytes have changed" in out


def test_checkpoints_of_another_run_and_of_another_model_are_refused(copy):
    workdir, flags = copy
    other = flags | {"model.image_head_width": "64", "stages.only.init": "()"}
    told = refusal(experiment.ConfigError, TINY, workdir, other)
    assert "model.image_head_width: 32 -> 64" in told
    for name in ("trainable", "opt_state.1.0.mu"):
        assert (
            f"{name}.image_head.fc2.kernel is float32 (32, 64) in the checkpoint, float32 (64, 64) here"
            in told
        )
    (workdir / "run").write_text("xyz")
    told = refusal(experiment.ConfigError, TINY, workdir, flags)
    assert "only/4 is a checkpoint of run abc" in told and "of run xyz" in told


@pytest.mark.parametrize("left", ["", "\0" * 16, None])
def test_the_id_of_a_run_that_a_crash_took_is_that_of_its_checkpoints(left, copy, capsys):
    workdir, flags = copy
    if left is None:
        (workdir / "run").unlink()
    else:
        (workdir / "run").write_text(left)
    assert "goes on from step 4" in rehearsed(capsys, TINY, workdir, flags)
    assert checkpoint.run_id(workdir) == "abc" == (workdir / "run").read_text()
    step = workdir / "checkpoints" / "only" / "3"
    facts = {key: x for key, x in checksums.read(step).items() if key not in ("files", "crc32")}
    checksums.write(step, facts | {"run": "xyz"})  # now they do not agree
    (workdir / "run").write_text("")
    told = refusal(experiment.ConfigError, TINY, workdir, flags)
    assert "only/4 is a checkpoint of run abc" in told and "of run not known" in told


def test_weights_of_another_model_are_refused_by_their_headers(files, tmp_path):
    flags = {
        "tokenizer": str(files / "weights"),
        "model.transformer.width": "64",
        "model.transformer.heads": "4",
    }
    told = refusal(experiment.ConfigError, TINY, tmp_path / "run", flags)
    assert "shape: text_embedding.table is (384, 32) in the file, (384, 64) in the model" in told
    flags = {"tokenizer": str(files / "weights"), "model.transformer.heads": "4"}
    with on_mesh(1, 2, 1):  # another that happens to be set
        told = refusal(experiment.ConfigError, TINY, tmp_path / "run", flags)
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
    told = refusal(experiment.ConfigError, TINY, tmp_path / "run", flags)
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


# Two runs in one work directory

HOLDER = """
import os, pathlib, sys, time
from janus_jax import identity
identity.hold(pathlib.Path(sys.argv[1]))
if not os.fork():
    time.sleep(300)
print(os.getpid(), flush=True)
time.sleep(300)
"""


def test_a_second_run_is_kept_out_until_the_first_is_gone_and_not_by_a_child_it_left(
    tmp_path, monkeypatch, capsys
):
    identity = preflight.identity
    monkeypatch.setattr(identity, "WAITS", 1)
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert first.stdout.readline().strip() == str(first.pid)
        with pytest.raises(experiment.ConfigError, match=f"is in use by process {first.pid} on ") as error:
            identity.hold(tmp_path / "run")
        assert main.exit_code(error.value) == 2
        assert f"in use by process {first.pid}" in capsys.readouterr().out
        first.kill()  # its child lives on
        first.wait()
        identity.hold(tmp_path / "run")
        assert capsys.readouterr().out == ""
        identity.hold(tmp_path / "run")  # as a notebook does that runs its cell again
    finally:
        identity.release()
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(preflight.identity.fcntl, "flock", flock)
    preflight.identity.hold(tmp_path)
    preflight.identity.release()
    assert f"{tmp_path / '.lock'}: no lock (No locks available)" in capsys.readouterr().out


# As a command


def command(workdir, *flags, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "janus_jax.main", f"--config={QUICKSTART}", f"--workdir={workdir}", *flags],
        cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | variables,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_command_tells_and_ends_with_0_and_writes_nothing(tmp_path):
    done = command(tmp_path / "run", "--dry_run", "--devices=8")
    assert done.returncode == 0, done.stderr
    assert (
        "8 by --devices, here are 1 x cpu" in done.stdout and "the run can begin on 8 devices" in done.stdout
    )
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_the_code_of_the_fault(tmp_path):
    done = command(tmp_path / "run", "--dry_run", "--config.data.datasets.scenes.path=gone.json")
    assert done.returncode == 3 and "SourceError: data.datasets.scenes: gone.json" in done.stderr
    assert "Traceback" not in done.stderr and "the run can begin" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    done = command(tmp_path / "run", "--devices=8")
    assert done.returncode == 2 and "--devices is of --dry_run" in done.stderr
