"""The command `plan`: its exit codes."""

import pytest
from support.paths import CONFIGS

from janus_jax.plan import __main__ as command
from janus_jax.plan import report

QUICKSTART = f"--config={CONFIGS / 'quickstart.py'}"


@pytest.mark.parametrize("fits, code", [((True, True), 0), ((True, False), 2)])
def test_a_stage_that_does_not_fit_ends_with_2(monkeypatch, fits, code):
    stages = {f"stage{i}": {"fits": fit} for i, fit in enumerate(fits)}
    monkeypatch.setattr(report, "run", lambda *_: {"stages": stages})
    assert command.main([QUICKSTART, "--topology=cpu:8"]) == code


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--topology=v5x:4"], "there is no chip 'v5x'; did you mean"),
        (["--topology=cpu:8", "--config.seed=x"], "--config.seed is 'x': must be a whole number"),
        (["--topology=cpu:8", "--config.mesh.fsdp=3"], "mesh"),
        (["--topology=cpu:8", "--config.stages.stage2.steps=1 epoch of scenes"], "steps=1000"),
    ],
)
def test_what_cannot_be_planned_ends_with_2_and_says_why(capsys, flags, said):
    assert command.main([QUICKSTART, *flags]) == 2
    told = capsys.readouterr().err
    assert said in told and "Traceback" not in told
