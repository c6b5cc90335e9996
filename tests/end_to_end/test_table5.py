"""benchmarks/table5.py: every job is one that the commands take, and the table says what is in the
reports."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.paths import ROOT

from janus_jax.common.exit_codes import UsageError
from janus_jax.config.read import read
from janus_jax.training.check_config import check


@pytest.fixture
def table5(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("table5", "table5_report", "table5_picture"):
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
    assert len(names) == len(set(names)) == 4 + 2 * (6 + 5 + 4) + 2
    assert names.index("ceiling vq") > names.index("D-0 generation")
    for name, done, arguments in jobs:
        flags = flags_of(arguments)
        if arguments[0] != "janus_jax.main":
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


def test_a_job_under_another_config_or_other_weights_is_refused_by_what_changed(table5, tmp_path):
    driver, _ = table5
    jobs = driver.commands(tmp_path, 1, ("D",))[-4:]
    name, done, arguments = jobs[0]
    vq = tmp_path / "vq" / "vq" / "model.safetensors"
    for file in (vq, done):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"one")
    with pytest.raises(UsageError, match=r"D-0\.json says how it was made"):
        driver.same_as_before(tmp_path, jobs)
    kept = driver.kept_in(tmp_path, name)
    kept.parent.mkdir()
    kept.write_text(json.dumps(driver.decided_by(tmp_path, arguments)), "utf-8")
    driver.same_as_before(tmp_path, jobs)
    assert str(tmp_path) not in kept.read_text("utf-8")
    vq.write_bytes(b"two")
    changed = [*arguments, "--config.stages.stage2.steps=7"]
    with pytest.raises(UsageError) as refused:
        driver.same_as_before(tmp_path, [(name, done, changed)])
    assert "D-0: config.stages.stage2.steps: 800 -> 7" in str(refused.value)
    assert "D-0: weights.OUT/vq/vq: " in str(refused.value)


WORKS = "import time; begun = time.process_time()\nwhile time.process_time() < begun + 0.2: pass"
MAKES = """
import json, os, pathlib, sys, time
name = sys.argv[1].removeprefix("--makes=")
began = time.time()
time.sleep(1.5 if name == "one" else 0)
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
folder = pathlib.Path(__file__).parent / name / name
folder.mkdir(parents=True)
told = json.dumps({"began": began, "ended": time.time(), "cores": cores})
(folder / "model.safetensors").write_text(told)
print("made", name)
"""
SAVES = """
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("{saved}").write_text("")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("{ready}").write_text("")
time.sleep(60)
"""


def test_the_seconds_of_a_job_add_up_and_hold_those_of_cpu(table5, tmp_path, monkeypatch):
    driver, _ = table5
    monkeypatch.setattr(driver, "decided_by", lambda *_: {})
    monkeypatch.setattr(driver, "ROOT", tmp_path)
    for code in (0, 3):
        (tmp_path / "job.py").write_text(f"{WORKS}\nraise SystemExit({code})", "utf-8")
        with pytest.raises(SystemExit, match=f"D-0 ended with {code}"):
            driver.work(tmp_path, [("D-0", tmp_path / "never", ["job"])])
    kept = json.loads((tmp_path / "seconds.json").read_text("utf-8"))["D-0"]
    assert kept["cpu_seconds"] > 0.4 and kept["seconds"] > 0.4 and "cores" in kept["machine"]


def test_jobs_at_once_wait_for_what_they_begin_with_and_share_the_cores(
    table5, tmp_path, monkeypatch
):
    driver, _ = table5
    monkeypatch.setattr(driver, "decided_by", lambda *_: {})
    monkeypatch.setattr(driver, "ROOT", tmp_path)
    (tmp_path / "job.py").write_text(MAKES, "utf-8")
    folders = {name: tmp_path / name / name for name in ("one", "two", "three")}
    jobs = [
        (name, folder / "model.safetensors", ["job", f"--makes={name}", *reads])
        for (name, folder), reads in zip(
            folders.items(), ([], [f"--init={folders['one']}"], []), strict=True
        )
    ]
    driver.work(tmp_path, jobs, at_once=2)
    made = {name: json.loads((f / "model.safetensors").read_text()) for name, f in folders.items()}
    assert made["two"]["began"] >= made["one"]["ended"]
    assert made["three"]["began"] < made["one"]["ended"]
    assert "made three" in (tmp_path / "logs" / "three.log").read_text("utf-8")
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        assert not set(made["one"]["cores"]) & set(made["three"]["cores"])
    with pytest.raises(SystemExit):
        monkeypatch.setattr(sys, "argv", ["table5.py", "--at_once=0"])
        driver.main()


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_driver_that_is_stopped_lets_its_job_save_and_keeps_its_seconds(number, tmp_path):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    (tmp_path / "job.py").write_text(SAVES.format(ready=ready, saved=saved), "utf-8")
    run = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'benchmarks')!r}, {str(ROOT)!r}]\n"
        "import pathlib, table5\n"
        "table5.decided_by = lambda *_: {}\n"
        f"table5.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        f"out = pathlib.Path({str(tmp_path)!r})\n"
        "table5.work(out, [('D-0', out / 'never', ['job'])])"
    )
    child = subprocess.Popen([sys.executable, "-c", run], env=dict(os.environ))
    while child.poll() is None and not ready.exists():
        time.sleep(0.05)
    child.send_signal(number)
    assert child.wait(30) != 0 and saved.exists()
    assert json.loads((tmp_path / "seconds.json").read_text("utf-8"))["D-0"]["seconds"] > 0


DIGESTS = {"asked_sha256": "of all", "detector_sha256": "of it"}


def score(value: float, low: float, high: float) -> dict:
    return {"value": value, "interval": [low, high], "chance": 0.25}


def around(value: float) -> dict:
    return score(value, value - 0.05, value + 0.05)


def plant(out, run: str, half: str, settings=DIGESTS, devices="1 x cpu", **scores):
    (out / run / half).mkdir(parents=True)
    report = {"settings": settings, "environment": {"devices": devices}, "scores": scores}
    (out / run / half / "report.json").write_text(json.dumps(report), "utf-8")


def answers(out, run: str, value: float):
    plant(out, run, "understanding", **{"held_out/overall": around(value)})


def written(report, out) -> str:
    report.write(out)
    return (out / "table5.md").read_text("utf-8")


def test_the_table_says_what_is_apart_and_what_is_not(table5, tmp_path, capsys):
    _, report = table5
    for seed, shift in ((0, 0.0), (1, 0.1)):
        for letter, value in (("D", 0.7), ("A", 0.4), ("B", 0.65)):
            answers(tmp_path, f"{letter}-{seed}", value + shift)
    for other in ("A-old", "A-00", "G-0", "A-0.bak"):
        answers(tmp_path, other, 0.9)
    text = written(report, tmp_path)
    assert "| D | **0.75** (0.7, 0.8) | - |" in text and "| A | **0.45** (0.4, 0.5) |" in text
    assert "* D against A, answers, held out: +0.300, apart (2 seeds)" in text
    assert "* D against B, answers, held out: +0.050, no difference seen (2 seeds)" in text
    assert "C against B" not in text and "A verdict about understanding uses" in text
    cells = json.loads((tmp_path / "table5.json").read_text("utf-8"))["cells"]
    of = cells["A"]["answers, held out"]
    assert (of["low"], of["high"]) == pytest.approx((0.35, 0.55))
    assert (tmp_path / "table5.png").stat().st_size > 1000
    assert "D against A" in capsys.readouterr().out


def test_a_reading_is_of_shared_seeds_alone_and_one_is_none(table5, tmp_path):
    _, report = table5
    for run, value in (("D-0", 0.7), ("D-1", 0.1), ("A-0", 0.4), ("B-1", 0.1001), ("F-2", 0.0)):
        answers(tmp_path, run, value)
    text = written(report, tmp_path)
    assert "* D against A, answers, held out: +0.300, one seed: no reading" in text
    assert "* D against B, answers, held out: +0.000, one seed: no reading" in text
    listed = text.split("Missing:", 1)[1]
    for lacking in (
        "* A-1 understanding",
        "* C-0 understanding",
        "* E-2 understanding",
        "* F-0 gen",
    ):
        assert f"{lacking}" in listed
    assert "* A-0 understanding (answers, seen; size, held out)" in listed
    assert "* D-0 generation\n" in listed and "C-0 generation" not in listed
    assert "* ceiling of the VQ tokenizer" in listed and "* probes of D-0 (" in listed


def test_the_claim_s_difference_is_told_seed_by_seed(table5, tmp_path):
    _, report = table5
    for run, value in (("C", 0.6), ("B", 0.5), ("E", 0.72), ("D", 0.7)):
        answers(tmp_path, f"{run}-0", value)
        answers(tmp_path, f"{run}-1", value + (0.02 if run == "B" else 0))
    answers(tmp_path, "E-2", 0.1)
    told = (
        "(C - B) - (E - D), answers, held out: +0.070 in the mean (seed 0: +0.080, seed 1: +0.060)"
    )
    assert f"{told}, above 0 with every seed" in written(report, tmp_path)
    answers(tmp_path, "C-2", 0.1)
    answers(tmp_path, "B-2", 0.1)
    answers(tmp_path, "D-2", 0.1)
    assert "seed 2: +0.000), not above 0 with every seed" in written(report, tmp_path)


def test_what_is_no_number_or_measured_otherwise_is_refused_all_at_once(table5, tmp_path):
    _, report = table5
    nan = float("nan")
    plant(tmp_path, "D-0", "understanding", **{"held_out/overall": score(nan, 0.1, 0.2)})
    plant(tmp_path, "A-0", "understanding", **{"seen/overall": score(0.1, 0.1, float("inf"))})
    warm = DIGESTS | {"temperature": 1.0}
    plant(tmp_path, "D-0", "generation", warm, overall=score(0.1, 0.1, 0.2))
    plant(tmp_path, "A-0", "generation", overall=score(0.1, 0.1, 0.2))
    other = {"right": 0.5, "of": 2, "settings": DIGESTS | {"detector_sha256": "of another"}}
    (tmp_path / "ceiling-vq.json").write_text(json.dumps(other), "utf-8")
    with pytest.raises(UsageError) as refused:
        report.write(tmp_path)
    for told in (
        "D-0 understanding: held_out/overall is nan",
        "A-0 understanding: seen/overall, upper bound, is inf",
        "generation: temperature is None in A-0 and 1.0 in D-0",
        "generation: detector_sha256 is 'of it' in A-0, D-0 and 'of another' in ceiling vq",
    ):
        assert told in str(refused.value)
    assert not (tmp_path / "table5.md").exists()


def test_a_table_that_cannot_be_made_ends_with_2(table5, tmp_path, monkeypatch, capsys):
    driver, _ = table5
    plant(tmp_path, "D-0", "generation", overall=score(float("nan"), 0.1, 0.2))
    monkeypatch.setattr(sys, "argv", ["table5.py", f"--out={tmp_path}", "--report"])
    with pytest.raises(SystemExit) as ended:
        driver.main()
    assert ended.value.code == 2 and "overall is nan" in capsys.readouterr().err


def test_beside_the_drawings_stand_true_pictures_the_tokenizers_and_the_cosines(table5, tmp_path):
    _, report = table5
    found = {"overall": score(0.3, 0.2, 0.4), "renders/overall": around(0.9)}
    found |= {"renders/found": around(0.97), "detector Fréchet distance": score(2.0, 2.0, 2.0)}
    for letter in "DA":
        plant(tmp_path, f"{letter}-0", "generation", devices="1 x H200", **found)
        records = [
            {
                "stage": "stage2",
                "step": step,
                "probes/cosine": cosine,
                "probes/norm_generation": 1.0,
            }
            for step, cosine in ((40, 0.2), (80, 0.3), (120, None))
        ]
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        (tmp_path / f"{letter}-0" / "metrics.jsonl").write_text(lines, "utf-8")
    for name, right in (("vq", 0.8), ("semantic", 0.7)):
        told = {"right": right, "of": 640, "settings": DIGESTS}
        (tmp_path / f"ceiling-{name}.json").write_text(json.dumps(told), "utf-8")
    took = {"seconds": 3600, "cpu_seconds": 5400, "machine": "a processor, 2 cores"}
    (tmp_path / "seconds.json").write_text(json.dumps({"D-0": took}), "utf-8")
    text = written(report, tmp_path)
    assert (
        "| **0.3** (0.3) | **0.9** (0.9) | **0.97** (0.97) | **2** (2) | **0.25** (0.25) |" in text
    )
    assert "| true pictures through the VQ tokenizer | - | - | - | 0.8 |" in text
    assert "| true pictures through the semantic tokenizer | - | - | - | 0.7 |" in text
    assert "1 x H200; a processor, 2 cores; jobs of 1.0 hours in all, 1.5 hours of CPU" in text
    assert (tmp_path / "probes.png").stat().st_size > 1000
