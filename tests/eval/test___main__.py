"""The command `eval`: what it refuses, and which weights it takes."""

import json

import pytest
from support.paths import CONFIGS

from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.config import read
from janus_jax.eval import __main__ as command
from janus_jax.eval import run
from janus_jax.training import run_dir


@pytest.fixture
def begun(tmp_path):
    """The work directory of a quick start that has just begun, and its config."""
    experiment, _ = read.read(str(CONFIGS / "quickstart.py"))
    (tmp_path / "config.json").write_text(json.dumps(run_dir.plain_values(experiment)))
    return tmp_path, experiment


def refusal(capsys, *flags) -> str:
    """What the command says to what a user can mend."""
    assert command.main(list(flags)) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told


def finish(workdir, stage: str):
    (workdir / stage).mkdir()
    (workdir / stage / WEIGHTS_FILE).touch()


def test_a_directory_without_a_config_is_no_run(tmp_path, capsys):
    told = refusal(capsys, f"--workdir={tmp_path}")
    assert f"--workdir={tmp_path}: no config.json there" in told and "name the --workdir" in told


def test_a_run_without_a_finished_stage_says_which_weights_to_give(begun, capsys):
    workdir, _ = begun
    told = refusal(capsys, f"--workdir={workdir}")
    assert f"--workdir={workdir}: no stage of it is done" in told
    assert f"--model={workdir}/checkpoints/<stage>" in told


def test_a_run_that_evaluates_nothing_asks_for_a_count(begun, capsys):
    workdir, experiment = begun
    values = run_dir.plain_values(experiment)
    values["evaluation"]["count"] = 0
    (workdir / "config.json").write_text(json.dumps(values))
    told = refusal(capsys, f"--workdir={workdir}")
    assert "--count: the run's config has evaluation.count 0; say how many" in told
    assert "no stage of it is done" in refusal(capsys, f"--workdir={workdir}", "--count=3")


def test_the_last_finished_stage_is_scored_with_the_numbers_of_the_flags(begun, monkeypatch):
    workdir, experiment = begun
    finish(workdir, "stage1")
    finish(workdir, "stage2")
    asked = []
    monkeypatch.setattr(run, "evaluate", lambda *all_of_it: asked.append(all_of_it))
    assert command.main([f"--workdir={workdir}", "--count=3", "--temperature=0"]) == 0
    (got, sources, weights, out, _, settings) = asked[0]
    assert (got, weights, out) == (experiment, workdir / "stage2", workdir)
    assert set(sources) == set(experiment.data.datasets)
    assert (settings.count, settings.temperature) == (3, 0.0)
    assert settings.cfg_scale == experiment.evaluation.cfg_scale
