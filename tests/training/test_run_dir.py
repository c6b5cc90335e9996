"""A work directory belongs to one config and to one run at a time."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from support.paths import ROOT
from support.rehearsal import QUICKSTART, TINY, refusal, rehearsed

from janus_jax.checkpoint import checksums
from janus_jax.checkpoint.history import plain_values
from janus_jax.common import exit_codes
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.config import read, schema
from janus_jax.training import run_dir

pytestmark = pytest.mark.usefixtures("traced_once")


def test_another_runs_work_directory_and_a_foreign_one_are_refused(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "stage1" / "0").mkdir(parents=True)
    assert "holds checkpoints but no config.json" in refusal(schema.ConfigError, QUICKSTART, run)
    plain = read.read(QUICKSTART)[0]
    (run / "config.json").write_text(json.dumps(plain_values(plain)))
    other = {"seed": "5", "stages.stage1.optim.eps": "1e-3"}
    told = refusal(schema.ConfigError, QUICKSTART, run, other)
    assert "seed: 0 -> 5" in told and told.count("optim.eps: 1e-08 -> 0.001") == 1
    assert "--accept_changes goes on" not in told  # it would not
    (run / "config.json").write_text("{")
    assert "cannot be read as the config of a run" in refusal(schema.ConfigError, QUICKSTART, run)
    assert sorted(p.name for p in run.iterdir()) == ["checkpoints", "config.json"]


def test_a_config_that_other_code_stored_gets_the_defaults_of_new_fields(tmp_path):
    plain, path = read.read(QUICKSTART)[0], tmp_path / "config.json"
    (tmp_path / "checkpoints" / "stage1" / "0").mkdir(parents=True)
    values = plain_values(plain)
    for section, field in (
        (values, "seed"),
        (values["stages"]["stage1"], "spikes"),
        (values["data"], "workers"),
    ):
        del section[field]
    del values["model"]["transformer"]["rope_theta"], values["stages"]["stage2"]["optim"]["eps"]
    path.write_text(json.dumps(values))
    assert not run_dir.changes_since(plain, tmp_path).lines()
    other = dataclasses.replace(plain, seed=5)
    assert run_dir.changes_since(other, tmp_path).refused == ["seed: 0 -> 5"]
    values["data"]["flavour"] = values["stages"]["stage1"]["colour"] = 3
    path.write_text(json.dumps(values))
    with pytest.raises(schema.ConfigError) as error:
        run_dir.changes_since(plain, tmp_path)
    told = str(error.value)
    assert f"{path} was written by other code" in told
    assert "data.flavour: unknown field" in told and "stages.stage1.colour: unknown field" in told


def test_finished_stages_without_their_checkpoints_still_belong_to_their_config(tmp_path):
    plain = read.read(QUICKSTART)[0]
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / WEIGHTS_FILE).touch()
    (tmp_path / "config.json").write_text(json.dumps(plain_values(plain)))
    assert "seed: 0 -> 5" in refusal(schema.ConfigError, QUICKSTART, tmp_path, {"seed": "5"})


@pytest.mark.parametrize("below", [False, True])
def test_a_work_directory_that_is_a_file_or_below_one(tmp_path, below):
    (tmp_path / "file").touch()
    workdir = tmp_path / "file" / "run" if below else tmp_path / "file"
    assert f"{tmp_path / 'file'} is a file" in refusal(schema.ConfigError, QUICKSTART, workdir)


@pytest.mark.parametrize("left", ["", "\0" * 16, None])
def test_the_id_of_a_run_that_a_crash_took_is_that_of_its_checkpoints(left, copy, capsys):
    workdir, flags = copy
    if left is None:
        (workdir / "run").unlink()
    else:
        (workdir / "run").write_text(left)
    assert "goes on from step 4" in rehearsed(capsys, TINY, workdir, flags)
    assert run_dir.run_id(workdir) == "abc" == (workdir / "run").read_text()
    step = workdir / "checkpoints" / "only" / "3"
    facts = {
        key: x for key, x in checksums.read_manifest(step).items() if key not in ("files", "crc32")
    }
    checksums.write(step, facts | {"run": "xyz"})  # now they do not agree
    (workdir / "run").write_text("")
    told = refusal(schema.ConfigError, TINY, workdir, flags)
    assert "only/4 is a checkpoint of run abc" in told and "of run not known" in told


# What may differ when a run goes on


def test_a_run_may_be_watched_otherwise_when_it_goes_on(tmp_path):
    plain = read.read(QUICKSTART)[0]
    run_dir.same_run(plain, tmp_path)
    (tmp_path / "checkpoints" / "stage1" / "0").mkdir(parents=True)
    run_dir.same_run(dataclasses.replace(plain, profile=5, wandb="mine"), tmp_path)
    with pytest.raises(schema.ConfigError, match="seed: 0 -> 5"):
        run_dir.same_run(dataclasses.replace(plain, seed=5), tmp_path)


def test_what_changes_memory_only_may_change_in_a_work_directory(tmp_path):
    """The flags that a stage which does not fit is told to take, after its first checkpoint was
    written."""
    path = str(ROOT / "configs/quickstart.py")
    overrides = {
        "model.remat": "full",
        "model.attention": "blockwise",
        "stages.stage2.accumulate": "2",
    }
    run_dir.same_run(read.read(path)[0], tmp_path)
    (tmp_path / "checkpoints" / "stage1" / "0").mkdir(parents=True)
    run_dir.same_run(read.read(path, overrides)[0], tmp_path)
    with pytest.raises(schema.ConfigError, match=r"seed: 0 -> 7"):
        run_dir.same_run(read.read(path, {"seed": "7"})[0], tmp_path)


# Two runs in one work directory

HOLDER = """
import os, pathlib, sys, time
from janus_jax.training import run_dir
run_dir.hold(pathlib.Path(sys.argv[1]))
if not os.fork():
    time.sleep(300)
print(os.getpid(), flush=True)
time.sleep(300)
"""


@pytest.mark.processes
def test_a_second_run_is_kept_out_until_the_first_is_gone_and_not_by_a_child_it_left(
    tmp_path, monkeypatch, capsys
):

    monkeypatch.setattr(run_dir, "WAITS", 1)
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert first.stdout.readline().strip() == str(first.pid)
        with pytest.raises(
            schema.ConfigError, match=f"is in use by process {first.pid} on "
        ) as error:
            run_dir.hold(tmp_path / "run")
        assert exit_codes.of_error(error.value) == 2
        assert f"in use by process {first.pid}" in capsys.readouterr().out
        first.kill()  # its child lives on
        first.wait()
        run_dir.hold(tmp_path / "run")
        assert capsys.readouterr().out == ""
        run_dir.hold(tmp_path / "run")  # as a notebook does that runs its cell again
    finally:
        run_dir.release()
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_dir.fcntl, "flock", flock)
    run_dir.hold(tmp_path)
    run_dir.release()
    assert f"{tmp_path / '.lock'}: no lock (No locks available)" in capsys.readouterr().out
