"""A whole run that goes on under a changed config, as a user starts it."""

import json

import pytest
from support.mesh import on_mesh
from support.paths import ROOT

from janus_jax import main
from janus_jax.checkpoint import checksums
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.config.schema import ConfigError

CONFIG = str(ROOT / "tests" / "support" / "two_processes.py")
FIRST = {"stages.only.steps": "3", "model.attention": "plain"}
MORE = FIRST | {
    "stages.only.steps": "6",
    "stages.only.optim.learning_rate": "5e-4",
    "stages.only.ratio.text": "1",
    "stages.only.log_every": "2",
}


def files(workdir) -> dict:
    paths = (p for p in workdir.rglob("*") if p.is_file() and p.name != ".lock")
    return {p: p.read_bytes() for p in paths}


@pytest.mark.slow
def test_a_finished_run_goes_on_with_twice_the_steps_half_the_rate_and_another_ratio(
    directory, monkeypatch, capsys
):
    monkeypatch.setenv("WEIGHTS", str(directory / "weights"))
    workdir = directory / "changed"
    with on_mesh(1, 8, 1):
        main.run(CONFIG, dict(FIRST), str(workdir))
        before = files(workdir)
        with pytest.raises(ConfigError, match="--accept_changes goes on from its last") as error:
            main.run(CONFIG, dict(MORE), str(workdir))
        for line in (
            "stages.only.steps: 3 -> 6",
            "stages.only.optim.learning_rate: 0.001 -> 0.0005",
            "stages.only.ratio.text: 3.0 -> 1.0",
        ):
            assert line in str(error.value)
        assert "log_every" not in str(error.value)
        assert files(workdir) == before
        capsys.readouterr()
        main.run(CONFIG, dict(MORE), str(workdir), accept_changes=True)
        out = capsys.readouterr().out
        main.run(CONFIG, dict(MORE), str(workdir))  # nothing is left to ask, or to do
    assert "data from step 3 " in out and "data.datasets.sentences goes on from" in out
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["learning_rate"]) for r in logged] == [
        *((step, 1e-3) for step in (1, 2, 3)),
        *((step, 5e-4) for step in (4, 6)),
    ]
    (entry,) = json.loads((workdir / "config.json").read_text())["history"]
    assert (entry["stage"], entry["step"]) == ("only", 3) and len(entry["changed"]) == 4
    last = checksums.read_manifest(workdir / "checkpoints" / "only" / "6")
    assert last["history"] == [entry] and last["config"]["stages"]["only"]["steps"] == 6
    for name in ("only", "only.step3"):
        assert (workdir / name / WEIGHTS_FILE).is_file()
