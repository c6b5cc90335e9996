"""The command `eval`: what it refuses, what it scores, and what it leaves."""

import json

import pytest
from support import endpoint, pictures
from support.paths import CONFIGS

from janus_jax.checkpoint.history import plain_values
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.config import read
from janus_jax.distributed import initialize
from janus_jax.eval import __main__ as command
from janus_jax.eval import judge, run


@pytest.fixture
def begun(tmp_path):
    """The work directory of a quick start that has just begun, and its config."""
    experiment, _ = read.read(str(CONFIGS / "quickstart.py"))
    (tmp_path / "config.json").write_text(json.dumps(plain_values(experiment)))
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


# A run scored again.


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
    values = plain_values(experiment)
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


# A benchmark.

DRAW = ("--benchmark=shapes", "--half=generation", "--data=shapes:1", "--model=quickstart")
ASK = ("--benchmark=shapes", "--half=understanding", "--data=shapes:1", "--model=quickstart")


@pytest.fixture(autouse=True, scope="module")
def alone():
    """JAX of this process has begun, and can join no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initialize, "initialize", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with a result of each half."""
    folder = tmp_path_factory.mktemp("scores")
    assert command.main([*DRAW, f"--out={folder}/drawn", "--pictures=2"]) == 0
    assert command.main([*ASK, f"--out={folder}/asked"]) == 0
    return folder


def report(folder) -> dict:
    return json.loads((folder / "report.json").read_text("utf-8"))


def test_a_report_has_all_that_makes_its_number_reproducible(scored):
    found = report(scored / "drawn")
    assert found["counts"] == {"asked": 12, "made": 12, "missing": 0, "prompts": 6}
    settings = found["settings"]
    assert len(settings["model"]["sha256"]) == len(settings["asked_sha256"]) == 64
    assert settings["model"]["template"] == {"user": "User", "assistant": "Assistant", "system": ""}
    known = {
        name: settings[name] for name in ("cfg_scale", "temperature", "seed", "pictures_a_prompt")
    }
    assert known == {"cfg_scale": 1.5, "temperature": 0.5, "seed": 0, "pictures_a_prompt": 2}
    assert {"jax", "janus_jax", "code_sha256", "devices"} <= set(found["environment"])
    overall = found["scores"]["overall"]
    low, high = overall["interval"]
    assert low <= overall["value"] <= high and 0 < overall["chance"] < 0.2
    assert len(found["by_picture"]["overall"]["values"]) == 2
    page = (scored / "drawn" / "report.md").read_text("utf-8")
    assert "| **overall** |" in page and "| settings.cfg_scale | 1.5 |" in page
    asked = report(scored / "asked")
    assert asked["counts"]["made"] == 20 and asked["scores"]["overall"]["value"] > 0.5


def test_the_same_command_draws_nothing_again(scored, capsys):
    before = {p: p.stat().st_mtime_ns for p in scored.rglob("*.png") if p.name != "sheet.png"}
    assert command.main([*DRAW, f"--out={scored}/drawn", "--pictures=2"]) == 0
    assert "loaded" not in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in before} and len(before) == 12


def test_the_same_command_keeps_what_a_scorer_has_added(scored):
    path = scored / "drawn" / "report.json"
    before = path.read_text("utf-8")
    added = json.loads(before) | {"scorer": "mine"}
    path.write_text(json.dumps(added))
    assert command.main([*DRAW, f"--out={scored}/drawn", "--pictures=2"]) == 0
    assert report(scored / "drawn")["scorer"] == "mine"
    path.write_text(before)


def test_a_result_of_other_settings_is_refused_and_told_apart(scored, capsys):
    told = refusal(capsys, *DRAW, f"--out={scored}/drawn", "--pictures=2", "--seed=5")
    assert "holds a result of other settings" in told and "seed: 0 -> 5" in told
    other = [flag for flag in ASK if "data" not in flag]
    told = refusal(capsys, *other, f"--out={scored}/asked", "--data=shapes:1?seed=2")
    assert "asked_sha256" in told


def test_a_tree_is_verified_and_each_fault_told(scored, capsys, tmp_path):
    verify = [*DRAW, f"--out={scored}/drawn", "--verify"]
    assert command.main(verify) == 0
    assert "12 pictures, all that the scorer needs" in capsys.readouterr().out
    tree = scored / "drawn" / "pictures"
    one, two = tree / "00001" / "samples" / "0000.png", tree / "00002" / "samples" / "0001.png"
    kept = one.read_bytes(), two.read_bytes()
    one.unlink()
    two.write_bytes(kept[1][:60])
    (tree / "00003" / "samples" / "0007.png").write_bytes(kept[0])
    try:
        told = refusal(capsys, *verify)
    finally:
        one.write_bytes(kept[0])
        two.write_bytes(kept[1])
        (tree / "00003" / "samples" / "0007.png").unlink()
    assert "00001/samples/0000.png: missing" in told
    assert "00002/samples/0001.png: cannot be read" in told
    assert "00003/samples/0007.png: is of no prompt" in told


def test_what_a_scorer_wrote_goes_into_the_report(scored, tmp_path, capsys):
    lines = (scored / "drawn" / "results.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) | {"correct": i % 4 == 0} for i, line in enumerate(lines)]
    results = tmp_path / "results.jsonl"
    results.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    before = (scored / "drawn" / "report.json").read_text("utf-8")
    flags = [*DRAW, f"--out={scored}/drawn", f"--results={results}", "--scorer=mine, 2026-11-29"]
    assert command.main(flags) == 0
    found = report(scored / "drawn")
    (scored / "drawn" / "report.json").write_text(before)
    assert found["scores"]["overall"]["value"] == 0.25 and found["scorer"] == "mine, 2026-11-29"
    results.write_text("".join(f"{json.dumps(row)}\n" for row in rows[:-1]))
    assert "No score is given of a part" in refusal(capsys, *flags)


def test_answers_of_another_harness_are_scored_without_a_model(scored, tmp_path, capsys):
    answers = scored / "asked" / "answers.jsonl"
    flags = [flag for flag in ASK if "model" not in flag]
    assert command.main([*flags, f"--answers={answers}", f"--out={tmp_path}/again"]) == 0
    told = capsys.readouterr()
    assert "loaded" not in told.err
    assert report(tmp_path / "again")["scores"] == report(scored / "asked")["scores"]


def test_two_results_are_compared_by_every_setting(scored, tmp_path, capsys):
    other = [flag for flag in DRAW if "data" not in flag]
    flags = [*other, "--data=shapes:1", "--pictures=1", "--cfg_scale=3", "--seed=1"]
    assert command.main([*flags, f"--out={tmp_path}/b"]) == 0
    capsys.readouterr()
    assert command.main(["compare", f"{scored}/drawn", f"{tmp_path}/b"]) == 0
    told = capsys.readouterr().out
    for name in ("cfg_scale", "seed", "pictures_a_prompt"):
        assert f"settings.{name} " in told
    assert "settings.temperature" not in told and "settings.model" not in told
    assert refusal(capsys, "compare", f"{scored}/drawn", f"{tmp_path}/none").count("no such report")


def test_answers_that_a_judge_scores_have_no_score_without_it(tmp_path, capsys, monkeypatch):
    rows = {
        f"v1_{n}": {
            "imagename": "a.png", "question": f"what of {n}?", "answer": "a", "capability": ["rec"],
        }
        for n in range(4)
    }  # fmt: skip
    (tmp_path / "mm-vet.json").write_text(json.dumps(rows))
    pictures.noise(8, 8, 0).save(tmp_path / "a.png")
    lines = [json.dumps({"index": index, "answer": "b"}) for index in rows]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    flags = [
        "--benchmark=mmvet", f"--data={tmp_path}/mm-vet.json", f"--images={tmp_path}",
        f"--answers={tmp_path}/answers.jsonl", f"--out={tmp_path}/out",
    ]  # fmt: skip
    assert command.main(flags) == 0
    assert "no judge was named, so MM-Vet has no score" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "mmvet.json").read_text()) == dict.fromkeys(rows, "b")
    assert report(tmp_path / "out")["scores"] == {}

    replies = iter(["0.5", "1.0", "rubbish", "0.0", "0.5"])

    def reply(body, _):
        return endpoint.chat_reply(next(replies, "rubbish"))

    with endpoint.endpoint(reply) as (url, seen):
        flags += [f"--judge_url={url}", "--judge_model=made"]
        monkeypatch.setattr(judge.Judge.__init__, "__defaults__", ("OPENAI_API_KEY", 128, 60.0, 1))
        assert command.main(flags) == 75
        told = capsys.readouterr().out
        assert "1 of 4 rows are unjudged, so there is no score" in told and "v1_2" in told
        assert report(tmp_path / "out")["scores"] == {}
        assert report(tmp_path / "out")["counts"]["unjudged"] == 1
        assert command.main(flags) == 0
        assert len(seen) == 5  # the fourth was judged before, the third alone is asked again
    found = report(tmp_path / "out")
    assert found["scores"]["total"]["value"] == 50.0 and found["scorer"]["replied_as"] == ["made-1"]

    graded = {index: {"score": [0.2], "content": ["0.2"]} for index in rows}
    (tmp_path / "graded.json").write_text(json.dumps(graded))
    given = [flag for flag in flags if not flag.startswith(("--answers", "--judge"))]
    assert command.main([*given, f"--results={tmp_path}/graded.json"]) == 0
    assert report(tmp_path / "out")["scores"]["total"]["value"] == pytest.approx(20.0)


@pytest.mark.parametrize(
    "flags, why",
    [
        (["--benchmark=shapes"], "--data, --out: missing"),
        ([*DRAW[2:], "--benchmark=shapes", "--out=x"], "both halves have it; give --half="),
        ([*DRAW[1:], "--benchmark=shape", "--out=x"], "did you mean 'shapes'?"),
        ([*DRAW, "--out=x", "--protocol=paper"], "protocol 'paper': shapes has 'shapes'"),
        ([*DRAW[:3], "--out=x"], "--model: missing"),
        ([*ASK, "--out=x", "--verify"], "--verify and --results are for pictures"),
        ([*DRAW, "--out=x", "--answers=a"], "--answers: shapes has pictures"),
        ([*ASK, "--out=x", "--judge_url=http://a/v1"], "--judge_url and --judge_model: give both"),
        ([*ASK, "--out=x", "--judge_url=http://a/v1", "--judge_model=m"], "shapes needs no judge"),
        ([*DRAW, "--out=x", "--workdir=y"], "--benchmark and --workdir: give one"),
        ([*ASK, "--out=x", "--temperature=1"], "--temperature: nothing reads it here"),
        ([*DRAW, "--out=x", "--images=y", "--count=2"], "--images, --count: nothing reads it"),
        ([*DRAW, "--out=x", "--size=24x16"], "--size is 24x16: this model draws 24x24 "),
        ([*ASK, "--out=x", "--size=24x24"], "--size: nothing reads it here"),
        (["--workdir=y", "--limit=2"], "--limit: nothing reads it here"),
        ([*DRAW, "--out=x", "--verify"], "--out=x: no result there; draw or answer first"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused(flags, why, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert why in refusal(capsys, *flags)
    assert not list(tmp_path.iterdir())


def test_all_benchmarks_are_listed_with_their_protocols(capsys):
    assert command.main(["list"]) == 0
    told = capsys.readouterr().out
    for name in ("pope", "mmbench", "geneval", "wise", "verified, legacy", "coco30k"):
        assert name in told
