"""A run goes on under a changed config where that is still the same run: what needs no word, what
needs one, what is refused."""

import dataclasses
import io
import json
import typing

import pytest
from support.rehearsal import QUICKSTART

from janus_jax.checkpoint import history
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.config import read, schema
from janus_jax.training import changes, run_dir

BASE = {"evaluation.holdout": "0.1", "evaluation.every": "50"}


@pytest.fixture
def workdir(tmp_path):
    """Of the quick start: stages 0 and 1 are done, stage 2 has saved step 400, stage 3 has not
    begun."""
    run_dir.same_run(experiment(), tmp_path)
    for name, step in (("stage0", 600), ("stage1", 60), ("stage2", 400)):
        save(tmp_path, name, step)
    for name in ("stage0", "stage1"):
        finish(tmp_path, name)
    return tmp_path


def save(workdir, name: str, step: int):
    (workdir / "checkpoints" / name / str(step)).mkdir(parents=True)


def evaluate(workdir, name: str, losses: dict[int, float]):
    found_by = [{"step": step, "validation_loss": loss} for step, loss in losses.items()]
    text = "".join(json.dumps(x) + "\n" for x in found_by)
    (workdir / "checkpoints" / name / "evaluation.jsonl").write_text(text)


def finish(workdir, name: str):
    (workdir / name).mkdir()
    (workdir / name / WEIGHTS_FILE).touch()


def experiment(**flags) -> schema.Experiment:
    flags = {name.replace("__", "."): value for name, value in flags.items()}
    found, wrong = read.read(QUICKSTART, BASE | flags)
    assert not wrong
    return found


def found(workdir, **flags) -> changes.Changes:
    return run_dir.changes_since(experiment(**flags), workdir)


# Which fields are which


def marks(kind=schema.Experiment, path: str = "", inherited: str = "another run"):
    """(path of each field that holds a value, its mark)."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        mark = field.metadata.get("resume", inherited)
        of = read.inner_type(hints[field.name])
        if typing.get_origin(of) is dict:
            of = typing.get_args(of)[1]
        if dataclasses.is_dataclass(of):
            yield from marks(of, f"{path}{field.name}.", mark)
        else:
            yield path + field.name, mark


def test_each_field_says_whether_it_may_differ():
    of = {}
    for path, mark in marks():
        of.setdefault(mark, set()).add(path)
    assert {
        "stages.log_every",
        "stages.checkpoint_every",
        "stages.spikes.sigma",
        "data.workers",
    } <= of["free"]
    assert {"evaluation.count", "evaluation.patience", "checkpoints.keep", "mesh.fsdp"} <= of[
        "free"
    ]
    assert {
        "stages.steps", "stages.optim.learning_rate", "stages.optim.schedule", "stages.optim.clip_norm",
        "stages.optim.weight_decay", "stages.ratio.text", "data.datasets.weight", "data.datasets.path",
        "stages.rows.count", "stages.supervise", "stages.condition_dropout", "evaluation.holdout",
    } <= of["accept"]  # fmt: skip
    assert {"model.dtype", "model.transformer.width", "tokenizer", "seed", "stages.trainable",
            "stages.task", "stages.options", "stages.optim.mu_dtype"} <= of["another run"]  # fmt: skip


# What needs no word


def test_what_changes_no_step_needs_no_word_and_stands_in_the_history(workdir):
    how = {"stages__stage2__log_every": "5", "checkpoints__keep": "7", "evaluation__patience": "3",
           "stages__stage2__spikes__sigma": "9.0", "evaluation__every": "70", "data__workers": "2",
           "checkpoints__best": "validation_loss", "mesh__tensor": "2", "model__remat": "full"}  # fmt: skip
    at = found(workdir, **how)
    assert len(at.free) == len(how) and not at.asked and not at.refused
    run_dir.same_run(experiment(**how), workdir)
    assert "stages.stage2.log_every: 20 -> 5" in run_dir.changed_before(workdir)[0]["changed"]
    again = found(workdir, **how)
    assert not again.lines() and len(again.history) == 1
    run_dir.same_run(experiment(**how), workdir)  # what did not change leaves no entry
    assert len(run_dir.changed_before(workdir)) == 1


def test_a_stage_that_has_not_begun_and_its_data_may_be_anything(workdir):
    at = found(workdir, stages__stage3__optim__learning_rate="0.5", stages__stage3__steps="9",
               stages__stage3__trainable="text_head", stages__stage3__ratio__text="0",
               data__datasets__pictures__path="emoji:")  # fmt: skip
    assert len(at.free) == 5 and not at.asked and not at.refused and at.stage == "stage2"
    more = experiment()
    last = more.stages["stage3"]
    more = dataclasses.replace(more, stages=more.stages | {"stage4": last})
    at = run_dir.changes_since(more, workdir)
    assert at.lines() == ["stages.stage4: nothing -> there"]
    moved = {"stage4": last} | {name: more.stages[name] for name in ("stage0", "stage1", "stage2")}
    at = run_dir.changes_since(dataclasses.replace(more, stages=moved), workdir)
    assert at.refused == [
        "stages.stage4 stands before stage2, which has begun: stages run in their order"
    ]


def test_a_stage_moved_before_one_that_has_begun_is_refused(workdir):
    names = ("stage0", "stage1", "stage3", "stage2")
    e = experiment()
    moved = dataclasses.replace(e, stages={name: e.stages[name] for name in names})
    assert run_dir.changes_since(moved, workdir).refused == [
        "stages.stage3 stands before stage2, which has begun: stages run in their order"
    ]


def test_longer_needs_no_word_only_where_no_step_so_far_would_have_been_another(workdir):
    assert found(workdir, stages__stage2__steps="1700").lines() == [
        "stages.stage2.steps: 800 -> 1700"
    ]
    at = found(workdir, stages__stage2__steps="700")
    assert at.asked == ["stages.stage2.steps: 800 -> 700"]
    at = found(workdir, stages__stage2__steps="300")
    assert at.asked == ["stages.stage2.steps: 800 -> 300 (it has reached step 400: it ends there)"]
    cosine = {"stages__stage2__optim__schedule": "cosine"}
    run_dir.same_run(experiment(**cosine), workdir, found(workdir, **cosine))
    at = found(workdir, stages__stage2__steps="1700", **cosine)
    assert at.asked == ["stages.stage2.steps: 800 -> 1700"] and not at.free
    (note,) = at.notes
    assert note.startswith("stages.stage2: at step 400 the learning rate goes from 0.00110")


@pytest.mark.parametrize("schedule", ["wsd", "linear"])
@pytest.mark.parametrize("decay, falls", [("400", False), ("500", True)])
def test_longer_needs_no_word_before_a_decay_at_the_end(schedule, decay, falls, workdir):
    """At step 400 of 800."""
    how = {"stages__stage2__optim__schedule": schedule, "stages__stage2__optim__decay_steps": decay}
    run_dir.same_run(experiment(**how), workdir, found(workdir, **how))
    at = found(workdir, stages__stage2__steps="1700", **how)
    assert (at.asked if falls else at.lines()) == ["stages.stage2.steps: 800 -> 1700"]
    assert bool(at.notes) == falls


# What needs one


def test_what_the_step_learns_of_is_named_one_by_one_and_needs_a_word(workdir):
    how = {"stages__stage2__optim__learning_rate": "1e-3", "stages__stage2__optim__clip_norm": "0.5",
           "stages__stage2__ratio__text": "1", "data__datasets__questions__weight": "2.0",
           "stages__stage2__supervise": "all", "stages__stage2__rows__count": "8",
           "template__system": "Be brief.", "evaluation__holdout": "0.2"}  # fmt: skip
    at = found(workdir, **how)
    assert not at.refused and not at.free and len(at.asked) == len(how)
    with pytest.raises(schema.ConfigError) as error:
        run_dir.same_run(experiment(**how), workdir)
    for line in (
        "stages.stage2.optim.learning_rate: 0.002 -> 0.001",
        "data.datasets.questions.weight: 1.0 -> 2.0",
        "stages.stage2.ratio.text: 3.0 -> 1.0",
        "--accept_changes goes on from its last checkpoint",
    ):
        assert line in str(error.value)
    assert history.read_config(workdir / "config.json")[0] == experiment()
    run_dir.same_run(experiment(**how), workdir, at)
    (entry,) = run_dir.changed_before(workdir)
    assert (entry["stage"], entry["step"], entry["changed"]) == ("stage2", 400, at.asked)
    assert entry["time"].startswith("20") and not found(workdir, **how).lines()


def test_a_rate_given_by_part_is_told_by_part(workdir):
    at = found(workdir, stages__stage2__optim__learning_rate__image_head="1e-5",
               stages__stage2__optim__weight_decay__image_head="0.2")  # fmt: skip
    assert at.asked == [
        "stages.stage2.optim.learning_rate.image_head: nothing -> 1e-05",
        "stages.stage2.optim.weight_decay.image_head: nothing -> 0.2",
    ]
    assert at.notes == [
        "stages.stage2: at step 400 the learning rate/image head goes from 0.002 to 1e-05"
    ]


def test_a_loss_that_becomes_another_is_said_where_it_judges(workdir):
    """Patience would end a stage whose new data are harder."""
    how = {"stages__stage2__ratio__text": "1", "stages__stage2__optim__eps": "1e-3"}
    assert not found(workdir, **how).notes
    assert not found(workdir, checkpoints__best="understanding/pope", **how).notes
    (note,) = found(workdir, checkpoints__best="validation_loss", **how).notes
    assert note.startswith(
        "stages.stage2: from step 400 on validation_loss measures something else (stages.stage2.ratio.text); "
    )


def test_what_no_stage_under_way_draws_needs_no_word_and_what_is_over_is_said(workdir):
    at = found(
        workdir, data__datasets__pictures__weight="3.0", stages__stage1__optim__learning_rate="1.0"
    )
    assert at.free == ["data.datasets.pictures.weight: 1.0 -> 3.0"]
    assert at.asked == [
        "stages.stage1.optim.learning_rate: 0.001 -> 1.0 (stage1 is done: nothing of it changes any more)"
    ]


def test_other_data_under_the_same_config_is_asked_once(workdir):
    """What the config says is told as it says it, what the files hold as the fingerprint does. A
    run that was killed before its next checkpoint is not asked again."""
    now = {"datasets": {"questions": {"weight": 2.0, "content": "b"}}, "versions": {"numpy": "2"}}
    lines = ["datasets.questions.weight: 1.0 -> 2.0", "datasets.questions.content: 'a' -> 'b'"]
    at = found(workdir)
    at.add_data("stage2", now, lines)
    assert at.asked == [f"stages.stage2, its data: {line}" for line in lines]
    how = {"data__datasets__questions__weight": "2.0"}
    at = found(workdir, **how)
    at.add_data("stage2", now, lines)
    assert at.asked[1:] == [f"stages.stage2, its data: {lines[1]}"]
    run_dir.same_run(experiment(**how), workdir, at)
    again = found(workdir, **how)
    again.add_data("stage2", now | {"versions": {}}, lines)
    assert not again.asked
    again.add_data("stage2", now | {"ratio": {}}, lines)
    assert again.asked


def test_data_that_were_accepted_once_are_asked_again_after_others_were_trained_on(workdir):
    """From step 400 on the files were others, then those of before again; now they are the others."""
    other = {"datasets": {"questions": {"content": "b"}}}
    lines = ["datasets.questions.content: 'a' -> 'b'"]
    at = found(workdir)
    at.add_data("stage2", other, lines)
    run_dir.same_run(experiment(), workdir, at)
    save(workdir, "stage2", 500)
    at = found(workdir)
    at.add_data("stage2", other, lines)
    assert at.asked == [f"stages.stage2, its data: {lines[0]}"]


@pytest.mark.parametrize("typed, goes_on", [("what?\nyes\n", True), ("no\n", False), ("", False)])
def test_a_person_is_told_all_changes_and_asked(typed, goes_on, workdir, monkeypatch, capsys):
    at = found(workdir, stages__stage2__optim__learning_rate="1e-3", stages__stage2__log_every="5")
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert at.agreed() == goes_on
    told = capsys.readouterr().out
    for line in at.lines():
        assert told.index(line) < told.index("[yes/no]")
    assert len(at.lines()) == 3  # the rate at this step among them


def test_weights_of_init_are_said_to_be_read_no_more_by_a_stage_that_has_begun(workdir):
    at = found(workdir, stages__stage2__init="weights/moved", stages__stage3__init="weights/moved")
    assert at.asked == [
        "stages.stage2.init: ['previous'] -> ['weights/moved'] (stage2 has begun: its weights are in its "
        "checkpoints)"
    ]
    assert len(at.free) == 1


# What is another run


def test_another_model_is_refused_and_the_rest_told_apart(workdir):
    at = found(workdir, seed="5", model__image_head_width="64", stages__stage2__trainable="text_head",
               stages__stage2__optim__mu_dtype="bfloat16", stages__stage2__optim__eps="1e-3")  # fmt: skip
    assert len(at.refused) == 4 and at.asked == ["stages.stage2.optim.eps: 1e-08 -> 0.001"]
    (told,) = at.problems(workdir)
    another, _, alone = told.partition("With these alone it would go on by --accept_changes:")
    assert "seed: 0 -> 5" in another and "optim.eps" in alone and "optim.eps" not in another


def test_stored_ids_given_to_a_stage_under_way_are_refused(workdir):
    at = found(workdir, data__datasets__scenes__image_ids="ids")
    assert "given to stages.stage2 or taken away" in at.refused[0]


def test_a_config_of_the_code_before_is_read(workdir):
    values = json.loads((workdir / "config.json").read_text())
    values["data"]["on_change"] = "accept"
    del values["history"]
    (workdir / "config.json").write_text(json.dumps(values))
    assert not found(workdir).lines()


# A stage that is done


def test_a_finished_stage_that_gets_more_steps_goes_on_and_its_weights_stay(workdir):
    for name in ("stage2", "stage3"):
        save(workdir, name, 850)
        finish(workdir, name)
    (workdir / "stage3.ema").mkdir()
    at = found(workdir, stages__stage3__steps="1600")
    assert at.reopened == {"stage3": 850} and at.asked and (at.stage, at.step) == ("stage3", 850)
    run_dir.same_run(experiment(stages__stage3__steps="1600"), workdir, at)
    assert (
        not (workdir / "stage3").exists() and (workdir / "stage3.step850" / WEIGHTS_FILE).is_file()
    )
    assert not (workdir / "stage3.ema").exists() and (workdir / "stage3.step850.ema").is_dir()
    assert not found(workdir, stages__stage3__steps="1600").lines()
    at = found(workdir, stages__stage3__steps="1600", stages__stage2__steps="1700")
    assert at.refused[0].startswith(
        "stages.stage2.steps: 800 -> 1700: stage2 is done and stage3 has begun after it; leave "
        "stages.stage2.steps=800, or"
    )
    assert not at.asked


def test_a_finished_stage_without_checkpoints_or_patience_says_why_it_does_not_go_on(workdir):
    how = {"evaluation__patience": "2", "checkpoints__best": "validation_loss"}
    run_dir.same_run(experiment(**how), workdir)
    finish(workdir, "stage2")
    where = workdir / "checkpoints" / "stage2"
    evaluate(workdir, "stage2", {300: 1, 350: 2, 400: 3})
    at = found(workdir, stages__stage2__steps="1700", **how)
    assert "validation_loss got no better in 2 evaluations before step 400" in at.refused[0]
    at = found(workdir, **how | {"evaluation__patience": "5"})
    assert at.reopened == {"stage2": 400} and not at.refused
    (where / "400").rmdir()
    at = found(workdir, stages__stage2__steps="1700", **how)
    assert "stage2 is done and its checkpoints are gone" in at.refused[0]
    assert f"stages.stage2.init={workdir / 'stage2'}" in at.refused[0] and not at.reopened


def test_other_patience_needs_no_word_where_a_stage_that_it_ended_stays_done(workdir):
    """It is for the stages that come: less of it, or more of it where a later one has begun."""
    how = {"evaluation__patience": "2", "checkpoints__best": "validation_loss"}
    run_dir.same_run(experiment(**how), workdir)
    finish(workdir, "stage2")
    evaluate(workdir, "stage2", {300: 1, 350: 2, 400: 3})
    at = found(workdir, **how | {"evaluation__patience": "1"})
    assert at.lines() == ["evaluation.patience: 2 -> 1"] and not at.refused
    save(workdir, "stage3", 0)
    at = found(workdir, **how | {"evaluation__patience": "5"})
    assert at.lines() == ["evaluation.patience: 2 -> 5"] and not at.refused and not at.reopened


def test_evaluations_that_cannot_be_read_are_named_and_not_the_config(workdir):
    finish(workdir, "stage2")
    (workdir / "checkpoints" / "stage2" / "evaluation.jsonl").write_text("{")
    how = {"evaluation__patience": "2", "checkpoints__best": "validation_loss"}
    with pytest.raises(schema.ConfigError, match=r"stage2/evaluation\.jsonl: not what") as error:
        found(workdir, **how)
    assert "config.json" not in str(error.value)
