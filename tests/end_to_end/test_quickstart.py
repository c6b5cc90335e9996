"""The command line, end to end: four stages, what they leave behind, going on after a kill,
refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from support.paths import ROOT
from support.processes import LEAN

from janus_jax.data.toy import shapes
from janus_jax.training import preflight

pytestmark = pytest.mark.processes

STAGES = ("stage0", "stage1", "stage2", "stage3")
TINY = {
    "model.understanding_encoder.width": 32,
    "model.understanding_encoder.mlp_width": 32,
    "model.understanding_encoder.layers": 1,
    "model.understanding_encoder.patch_size": 8,
    "model.generation_encoder.channels": 8,
    "model.generation_encoder.z_channels": 8,
    "model.generation_encoder.codebook_size": 32,
    "model.transformer.width": 32,
    "model.transformer.mlp_width": 32,
    "model.transformer.layers": 1,
    "model.image_head_width": 32,
    "stages.stage0.steps": 3,
    "stages.stage0.batch_size": 4,
    "stages.stage0.optim.warmup_steps": 1,
    "stages.stage1.steps": 2,
    "stages.stage1.optim.warmup_steps": 1,
    "stages.stage2.optim.warmup_steps": 5,
    "stages.stage2.steps": 20,
    "stages.stage2.checkpoint_every": 4,
    "stages.stage2.log_every": 1,
    "stages.stage3.steps": 2,
    "evaluation.count": 1,
} | {f"stages.{name}.rows.count": 2 for name in STAGES[1:]}
SLOWEST = 300  # seconds that a run may take


def command(workdir, **changes) -> list[str]:
    values = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    config = ROOT / "configs" / "quickstart.py"
    return [
        sys.executable,
        "-m",
        "janus_jax.main",
        f"--config={config}",
        f"--workdir={workdir}",
        *flags,
    ]


def environment() -> dict:
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": LEAN}


def run(workdir, words=None, **changes) -> subprocess.CompletedProcess:
    """The command, or other `words`."""
    return subprocess.run(
        words or command(workdir, **changes),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SLOWEST,
    )


def records(workdir) -> list[dict]:
    path = workdir / "metrics.jsonl"
    whole = (
        [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
        if path.exists()
        else []
    )
    return [json.loads(line) for line in whole]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(work directory of an uninterrupted run, what it printed)."""
    workdir = tmp_path_factory.mktemp("main") / "run"
    done = run(workdir)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return workdir, done.stdout


@pytest.mark.slow
def test_a_run_leaves_metrics_curves_pictures_scores_and_weights(finished):
    workdir, _ = finished
    steps = {}
    for record in records(workdir):
        steps.setdefault(record["stage"], []).append(record["step"])
        assert all(np.isfinite(x) for x in record.values() if not isinstance(x, str)), record
    assert tuple(steps) == STAGES
    assert [steps[name][-1] for name in STAGES] == [3, 2, 20, 2]
    assert steps["stage2"] == list(range(1, 21))
    for name in ("curves.png", "pictures.png"):
        with Image.open(workdir / name) as picture:
            assert min(picture.size) > 100 and len(set(picture.convert("L").tobytes())) > 2, name
    results = json.loads((workdir / "results.json").read_text())
    assert set(results) == {"drawing", "answering", "tokenizer"}
    for rows in (results["drawing"], results["answering"]):
        for score, chance, count in rows.values():
            assert 0 <= score <= 1 and 0 < chance < 1 and count >= 1
    assert set(results["drawing"]) == {*shapes.TASKS, "overall"}
    assert set(results["answering"]) == {*shapes.QUESTIONS, "overall"}
    for name in STAGES:
        assert list((workdir / "tensorboard" / name).glob("events*")), name
        assert (workdir / name / "model.safetensors").is_file()
    assert not list(workdir.glob("*.partial"))


@pytest.mark.slow
def test_the_tables_name_their_chance(finished):
    _, printed = finished
    heads = [line.split() for line in printed.splitlines() if "chance" in line]
    assert ["task", "score", "95", "%", "chance", "pictures"] in heads
    assert ["question", "score", "95", "%", "chance", "questions"] in heads
    for row in ("single_object", "color_attr", "exists", "overall"):
        assert any(line.split()[:1] == [row] for line in printed.splitlines()), row


@pytest.mark.slow
def test_every_stage_trains_its_flames_only(finished):
    workdir, _ = finished
    before, after = (
        load_file(workdir / name / "model.safetensors") for name in ("stage1", "stage2")
    )
    changed = {
        name.split(".")[0] for name in after if before[name].tobytes() != after[name].tobytes()
    }
    assert changed == {name.split(".")[0] for name in after} - {"generation_encoder"}
    tokenizer = load_file(workdir / "stage0" / "model.safetensors")
    for name, x in tokenizer.items():
        assert x.tobytes() == after[name].tobytes(), name


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(finished):
    workdir, printed = finished
    files = [workdir / name / "model.safetensors" for name in STAGES]
    before, seen = [(f.stat().st_mtime_ns, f.read_bytes()) for f in files], records(workdir)
    done = run(workdir)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(f.stat().st_mtime_ns, f.read_bytes()) for f in files] == before
    assert records(workdir) == seen
    assert "stage2: 20 steps" in printed and "stage2: 20 steps" not in done.stdout
    tables = [
        out[out.index("Shapes: GenEval's") :].split("\n\n")[:2] for out in (printed, done.stdout)
    ]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_another_config_in_the_same_workdir_is_refused(finished):
    workdir, _ = finished
    before = (workdir / "config.json").read_bytes()
    done = run(workdir, seed=5, stages__stage3__optim__learning_rate=0.5)
    assert done.returncode == 2
    assert (
        "seed: 0 -> 5" in done.stderr
        and "stages.stage3.optim.learning_rate: 0.001 -> 0.5" in done.stderr
    )
    assert "Traceback" not in done.stderr and "--workdir" in done.stderr
    assert (workdir / "config.json").read_bytes() == before


PLAIN = """
from janus_jax import main
from janus_jax.training import curves

curves.plot = lambda *_: None  # which takes longer than all the steps
main.main()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(finished, capsys):
    workdir = finished[0].parent / "killed"
    printed = finished[0].parent / "out"
    python, _, _, *flags = command(workdir, evaluation__count=0)
    words = [python, "-c", PLAIN, *flags]
    with open(printed, "w") as out:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment(),
            stdout=out,
            stderr=out,
        )
        begin = time.monotonic()
        saved = workdir / "checkpoints" / "stage2"
        while process.poll() is None and time.monotonic() - begin < SLOWEST:
            steps = (
                [int(p.name) for p in saved.glob("[1-9]*") if p.name.isdigit()]
                if saved.is_dir()
                else []
            )
            last = max((r["step"] for r in records(workdir) if r["stage"] == "stage2"), default=0)
            if steps and last % 4 and last > min(steps):
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, printed.read_text()[-4000:]
    killed_at = max(r["step"] for r in records(workdir) if r["stage"] == "stage2")
    assert 4 < killed_at < 20
    assert not (workdir / "stage2").exists()
    last = max(int(p.name) for p in saved.iterdir() if p.name.isdigit())
    flags = dict(word.removeprefix("--config.").split("=") for word in command(workdir)[5:])
    preflight.rehearse(str(ROOT / "configs" / "quickstart.py"), flags, workdir, devices=1)
    told = capsys.readouterr().out
    warnings = [line for line in told.splitlines() if "WARNING" in line]
    assert all("batch_size is" in line for line in warnings), "two rows hold few examples"
    assert f"goes on from step {last} of 20" in told
    assert re.search(r"stage1 +is done", told)

    done = run(workdir, words)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "stage1: 2 steps" not in done.stdout and "stage2: 20 steps" in done.stdout
    for name in ("stage2", "stage3"):
        a, b = (load_file(w / name / "model.safetensors") for w in (finished[0], workdir))
        assert a.keys() == b.keys()
        assert [key for key in a if a[key].tobytes() != b[key].tobytes()] == [], name
    plain = lambda w: [(r["stage"], r["step"], r["loss"]) for r in records(w)]
    assert plain(workdir) == plain(finished[0])
    resumed = [int(p.name) for p in saved.glob("*") if p.name.isdigit()]
    assert max(resumed) == 20


def test_typos_end_at_once_with_a_suggestion_each(tmp_path):
    flags = [
        "--config.stages.stage2.step=5",
        "--config.model.transformer.width=33",
        "--config.stages.stage3.optim.schedule=cosin",
    ]
    words = [
        "stages.stage2.step",
        "'steps'",
        "model.transformer.width is 33",
        "nearest",
        "stages.stage3.optim.schedule",
        "'cosine'",
    ]
    workdir = tmp_path / "run"
    done = subprocess.run(
        [*command(workdir), *flags],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SLOWEST,
    )
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert not workdir.exists()


GREEDY = """
import jax.numpy as jnp
from janus_jax import main
from janus_jax.training.tasks import janus

def step(state, batch, tx, accumulate):
    return state, {"loss": jnp.ones((10**9, 10**6)), "nonfinite_updates": jnp.int32(0)}

janus.train_step = step
main.main()
"""


@pytest.mark.slow
def test_a_stage_that_does_not_fit_is_explained_with_flags_that_help(finished):
    """The step asks XLA's CPU runtime for 4 PB; the sizes told are those of the step that the
    config means."""
    workdir = finished[0].parent / "greedy"
    shutil.copytree(finished[0] / "stage0", workdir / "stage0")
    shutil.copy(finished[0] / "config.json", workdir)
    args = command(workdir)
    done = subprocess.run(
        [args[0], "-c", GREEDY, *args[3:]],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SLOWEST,
    )
    assert done.returncode == 2, done.stderr[-4000:]
    assert "stage1 does not fit the memory of cpu: RESOURCE_EXHAUSTED" in done.stderr
    assert "4000000000000000 bytes" in done.stderr and "Traceback" not in done.stderr
    told = done.stderr.split("What would save most")[1]
    assert "--config.stages.stage1.accumulate=2" in told and told.count("--config.") == 3
