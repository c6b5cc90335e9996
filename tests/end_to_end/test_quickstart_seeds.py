"""benchmarks/quickstart_seeds.py: the table holds what the runs left, and each run its own change."""

import json
import pathlib
import subprocess
import sys

import pytest

from janus_jax.data.toy.shapes import QUESTIONS, TASKS

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def seeds(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import quickstart_seeds

    return quickstart_seeds


def leave(folder, seed, drawing, answering, **about):
    folder.mkdir(parents=True)
    score = lambda value, names: {name: [value, 0.1, 50] for name in names}
    results = {
        "drawing": score(drawing, [*TASKS, "overall"]),
        "answering": score(answering, [*QUESTIONS, "overall"]),
    }
    (folder / "results.json").write_text(json.dumps(results))
    facts = {"flags": [], "seed": seed, "seconds": 500.4, "cores": 2, "machine": "a CPU"}
    (folder / "about.json").write_text(json.dumps(facts | about))


def test_the_table_has_each_seeds_scores_and_their_means(seeds, tmp_path):
    leave(tmp_path / "plain" / "seed0", 0, 0.8, 0.9)
    leave(tmp_path / "plain" / "seed1", 1, 0.6, 0.7, seconds=None)
    flag = "--config.stages.stage2.steps=9"
    leave(tmp_path / "longer" / "seed0", 0, 0.5, 0.25, flags=[flag], cores=1)
    (tmp_path / "plain" / "seed2").mkdir()  # not done
    told = seeds.report(tmp_path)
    (longer,) = [line for line in told.splitlines() if line.startswith("longer")]
    (plain,) = [line for line in told.splitlines() if line.startswith("plain")]
    assert "0.70 (0.80, 0.60)" in plain and "0.80 (0.90, 0.70)" in plain and " 500 " in plain
    assert "0.50 (0.50)" in longer and "0.25 (0.25)" in longer and "not alone" in longer
    assert f"* longer: {flag}" in told and "* plain: nothing" in told


def test_a_flag_that_changes_no_config_is_refused(tmp_path):
    command = [sys.executable, "quickstart_seeds.py", "--name=a", f"--out={tmp_path}", "--steps=9"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 2 and "--steps=9: a variant is given by flags" in done.stderr
    assert not list(tmp_path.iterdir())
