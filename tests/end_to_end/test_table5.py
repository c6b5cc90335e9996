"""benchmarks/table5.py: every job is one that the commands take, and the table says what is in the
reports."""

import json
import sys

import pytest
from support.paths import ROOT

from janus_jax.config.read import read
from janus_jax.training.check_config import check


@pytest.fixture
def table5(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("table5", "table5_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import table5
    import table5_report

    return table5, table5_report


def flags_of(arguments: list[str]) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in arguments[1:])


def test_each_job_is_a_config_that_can_run_and_begins_with_what_earlier_ones_leave(
    table5, tmp_path
):
    driver, _ = table5
    jobs = driver.commands(tmp_path, 2, driver.ORDER)
    made = set()
    names = [name for name, _, _ in jobs]
    assert len(names) == len(set(names)) == 4 + 2 * (6 + 5 + 4)
    for name, done, arguments in jobs:
        flags = flags_of(arguments)
        if arguments[0] == "janus_jax.eval":
            assert any(flags["model"] == str(file.parent) for file in made)
            assert "detector" not in flags["data"] or str(tmp_path / "detector") in flags["data"]
        else:
            overrides = {
                key.removeprefix("config."): value
                for key, value in flags.items()
                if key.startswith("config.")
            }
            experiment, wrong = read(str(ROOT / flags["config"]), overrides)
            check(experiment, 1, known=wrong)
            first = next(iter(experiment.stages.values()))
            assert {f"{path}/model.safetensors" for path in first.init} <= {str(m) for m in made}
            assert done == tmp_path / name / list(experiment.stages)[-1] / "model.safetensors"
        made.add(done)


def score(value: float, low: float, high: float) -> dict:
    return {"value": value, "interval": [low, high], "chance": 0.25}


def plant(out, run: str, half: str, **scores):
    (out / run / half).mkdir(parents=True)
    (out / run / half / "report.json").write_text(json.dumps({"scores": scores}), "utf-8")


def test_the_table_says_what_is_apart_and_what_is_not(table5, tmp_path, capsys):
    _, report = table5
    for seed, shift in ((0, 0.0), (1, 0.1)):
        for letter, value in (("D", 0.7), ("A", 0.4), ("B", 0.65)):
            found = score(value + shift, value + shift - 0.05, value + shift + 0.05)
            plant(tmp_path, f"{letter}-{seed}", "understanding", **{"held_out/overall": found})
    report.write(tmp_path)
    text = (tmp_path / "table5.md").read_text("utf-8")
    assert "| D | **0.75** (0.7, 0.8) | - | - | - | 2 |" in text
    assert "* D against A, answers, held out: +0.300, apart" in text
    assert "* D against B, answers, held out: +0.050, no difference seen" in text
    assert "C against B" not in text and "drawings right" not in text.split("* D against A", 1)[1]
    cells = json.loads((tmp_path / "table5.json").read_text("utf-8"))["cells"]
    of = cells["A"]["answers, held out"]
    assert (of["low"], of["high"]) == pytest.approx((0.35, 0.55))
    assert (tmp_path / "table5.png").stat().st_size > 1000
    assert "D against A" in capsys.readouterr().out
