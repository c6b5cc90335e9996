"""A first try of a config is a small run of the same."""

import pathlib

import pytest
from support.configs import QUICKSTART, shipped

from janus_jax import main
from janus_jax.config.lengths import in_steps
from janus_jax.config.read import read
from janus_jax.distributed import processes
from janus_jax.training import check_config, smoke


def small(path: str, given: dict | None = None):
    built, wrong = read(path, smoke.shrunk(path, given or {}))
    assert not wrong
    return check_config.check(built, 8)


@pytest.mark.parametrize("path", shipped(), ids=lambda path: pathlib.Path(path).name)
def test_a_first_try_of_every_shipped_config_is_sound_and_short(path):
    whole, tried = read(path)[0], small(path)
    assert tried.model == whole.model and tried.evaluation.count <= smoke.COUNT
    for name, stage in tried.stages.items():
        before = whole.stages[name]
        assert stage.steps == min(before.steps, smoke.STEPS) <= stage.checkpoint_every
        assert (stage.rows, stage.batch_size) == (before.rows, before.batch_size)
        of = lambda s: in_steps(s.optim.warmup_steps, s.steps) / s.steps
        assert of(stage) == pytest.approx(of(before), abs=1 / smoke.STEPS)
        assert bool(of(stage)) == bool(of(before))


def test_a_first_try_shrinks_all_that_counts_steps_given_or_not():
    lines = {"data.datasets.scenes.steps": "(0, 100)", "data.datasets.scenes.weight": "0.5"}
    given = {
        "stages.stage2.steps": "2 epochs of questions",
        "stages.stage2.optim.schedule": "wsd",
        "stages.stage2.optim.decay_steps": "0.2",
        "stages.stage3.optim.schedule": "wsd",
        "stages.stage3.optim.decay_steps": "400",
        "stages.stage1.steps": "8",
        "stages.stage0.options.discriminator": "patchgan",
        "stages.stage0.options.discriminator_start": "300",
        "evaluation.every": "100",
        "evaluation.holdout": "0.1",
        "evaluation.benchmarks": "pope@200=a.tsv,shapes=shapes:3",
    }
    tried = small(QUICKSTART, given | lines | {"stages.stage1.optim.warmup_steps": "2"})
    assert tried.stages["stage1"].steps == 8  # as given: short enough
    assert tried.stages["stage0"].options["discriminator_start"] == 5
    flags = smoke.flags(read(QUICKSTART, given | lines)[0])
    assert flags["stages.stage2.steps"] == "10" and flags["stages.stage2.optim.warmup_steps"] == "1"
    assert flags["stages.stage2.optim.decay_steps"] == "2"
    assert flags["stages.stage3.optim.decay_steps"] == "5"
    assert flags["data.datasets.scenes.steps"] == "()"
    assert flags["evaluation.benchmarks"] == "('pope@2=a.tsv', 'shapes@2=shapes:3')"
    assert flags["evaluation.every"] == "10" and flags["evaluation.count"] == "2"


@pytest.mark.parametrize(
    "warmup, decay, few",
    [
        (0.05, 0.95, (1, 9)),
        (20, 380, (1, 9)),
        (1, 1, (1, 1)),
        (400, 0, (9, 0)),
        (0, 0.999, (0, 10)),
    ],
)
def test_warm_up_and_decay_that_fill_a_stage_fill_its_first_try(warmup, decay, few):
    """Of 400 steps, the quick start's last stage."""
    optim = {
        "warmup_steps": warmup,
        "decay_steps": decay,
        "schedule": "wsd" if decay else "constant",
    }
    given = {f"stages.stage3.optim.{field}": str(value) for field, value in optim.items()}
    found = small(QUICKSTART, given | {"stages.stage3.steps": "400"}).stages["stage3"].optim
    assert (found.warmup_steps, found.decay_steps) == few


def test_a_first_try_does_not_hide_an_impossible_warm_up():
    with pytest.raises(ValueError, match=r"optim\.warmup_steps is 401: longer than the 10"):
        small(QUICKSTART, {"stages.stage3.steps": "400", "stages.stage3.optim.warmup_steps": "401"})


def test_a_first_try_has_a_work_directory_of_its_own(tmp_path, capsys):
    """And says what it is."""
    run = str(tmp_path / "run")
    flags, own = main.first_try(QUICKSTART, {"seed": "1"}, run)
    told = capsys.readouterr().out
    assert own == f"{run}-smoke" and f"--workdir={own} " in told
    assert flags["seed"] == "1" and "--config.stages.stage3.steps=10" in told
    assert smoke.own_workdir(run) == f"{run}-smoke"
    (tmp_path / "run-smoke").mkdir()
    assert smoke.own_workdir(run) == f"{run}-smoke2"


def test_a_first_try_ends_on_all_processes_where_one_cannot_read_the_config(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "all_gather", lambda value: [value, ["ConfigError: gone", 2]])
    with pytest.raises(processes.Others, match="process 1: ConfigError: gone"):
        main.first_try(QUICKSTART, {}, str(tmp_path / "run"))
