"""Benchmarks scored while a stage trains."""

import dataclasses
import json
import types

import pytest
from support import tiny
from support.configs import checked

import janus_jax
from janus_jax.config.schema import ConfigError
from janus_jax.eval import during_scores
from janus_jax.eval.during_scores import Scores


def experiment(*benchmarks, **more):
    plain = checked()
    changed = dataclasses.replace(plain.evaluation, benchmarks=benchmarks, **more)
    return dataclasses.replace(plain, evaluation=changed)


@pytest.mark.slow
def test_a_world_is_scored_in_both_halves_and_again_from_nothing(tmp_path):
    model, processor = janus_jax.load("quickstart")
    scores = Scores(experiment("shapes@6=shapes:1"), "stage3", tmp_path, print)
    found = scores(40, model, processor)
    assert found.keys() == {"understanding/shapes", "generation/shapes"}
    assert found["understanding/shapes"] > 0.3  # six questions; the chance is a third
    folder = tmp_path / "evaluation" / "stage3-40" / "shapes-understanding"
    report = json.loads((folder / "report.json").read_text())
    assert report["scores"]["overall"]["value"] == found["understanding/shapes"]
    assert (
        report["counts"]["asked"] == 6 and report["settings"]["model"]["name"] == "stage3, step 40"
    )
    # A run that goes on may come to the step with other weights: nothing is taken over.
    answers = folder / "answers.jsonl"
    answers.write_text(answers.read_text().replace('"answer": "', '"answer": "not '))
    assert scores(40, model, processor) == found and "not " not in answers.read_text()


def test_what_cannot_be_scored_is_refused_at_once(tmp_path):
    asked = experiment("popo=a.tsv", "pope", "pope@0=a.tsv", "mmvet=a.tsv", "geneval=a.jsonl")
    with pytest.raises(ConfigError) as error:
        Scores(asked, "stage3", tmp_path, print)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(": ", 1)[1] for line in lines] == [
        "no benchmark; did you mean 'pope'?",
        f"must be {during_scores.FORM}",
        f"must be {during_scores.FORM}",
        "a judge scores it: take janus-jax eval, once the weights are there",
        "its scorer is another program: take janus-jax eval, once the weights are there",
    ]
    assert (
        lines[0] == "  - evaluation.benchmarks has 'popo=a.tsv': no benchmark; did you mean 'pope'?"
    )


def test_a_benchmark_that_is_named_twice_and_a_best_that_nothing_scores_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="shapes is there before"):
        during_scores.require_scorable(
            experiment("shapes=shapes:1", "shapes=shapes:2"), tiny.processor()
        )

    def with_best(best: str, *benchmarks):
        found = experiment(*benchmarks)
        kept = dataclasses.replace(found.checkpoints, best=best)
        return dataclasses.replace(found, checkpoints=kept)

    with pytest.raises(ConfigError, match=r"checkpoints\.best is 'generation/pope': unknown"):
        during_scores.require_scorable(
            with_best("generation/pope", "shapes=shapes:1"), tiny.processor()
        )
    during_scores.require_scorable(
        with_best("generation/shapes", "shapes=shapes:1"), tiny.processor()
    )
    with pytest.raises(ValueError, match=r"none\.tsv"):
        during_scores.require_scorable(with_best("", f"pope={tmp_path}/none.tsv"), tiny.processor())


def test_a_full_disk_costs_a_score_and_not_the_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    said = []
    monkeypatch.setattr(during_scores.provenance, "begin", full)
    scores = Scores(experiment("shapes@2=shapes:1"), "stage3", tmp_path, said.append)
    sizes = types.SimpleNamespace(generation_encoder=types.SimpleNamespace(image_size=24))
    processor = types.SimpleNamespace(cfg_scale=1.0, temperature=1.0)
    assert scores(40, types.SimpleNamespace(config=sizes), processor) == {}
    assert len(said) == 2 and "no shapes of step 40" in said[0] and "No space left" in said[0]


def test_a_half_that_a_stage_does_not_keep_is_not_scored_and_cannot_be_all_that_is_asked(tmp_path):
    def keeping(keep: str, best: str, *benchmarks):
        found = experiment(*benchmarks)
        stage = dataclasses.replace(found.stages["stage3"], options={"keep": keep})
        best = dataclasses.replace(found.checkpoints, best=best)
        return dataclasses.replace(found, stages=found.stages | {"stage3": stage}, checkpoints=best)

    said = []
    asked = keeping("understanding+text", "understanding/shapes", "shapes@6=shapes:1")
    during_scores.require_scorable(asked, tiny.processor())
    scores = Scores(asked, "stage3", tmp_path, said.append)
    assert [task.half for task, _ in scores.asked] == ["understanding"]
    (line,) = [line for line in said if "not scored" in line]
    assert line == (
        "  generation/shapes is not scored: stages.stage3.options.keep is 'understanding+text', so "
        "that generation is not learned"
    )
    assert len(Scores(asked, "stage2", tmp_path, said.append).asked) == 2
    wrong = keeping("text", "generation/shapes", "shapes@6=shapes:1")
    with pytest.raises(ConfigError) as error:
        during_scores.require_scorable(wrong, tiny.processor())
    assert "checkpoints.best is 'generation/shapes': stages.stage3" in str(error.value)
    assert "nothing of it would be scored" in str(error.value)
