"""Every script of benchmarks/ at toy size, beside the other side as it is installed: a name that has
moved on either side shows here. What the figures say is not looked at."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import types

import pytest
import torch
from support.mesh import on_mesh
from support.paths import BENCHMARKS
from support.processes import COMPILING

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def settings():
    """The mesh and PyTorch's settings as they were, whatever a script makes of them."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    with on_mesh():
        yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def typed(script: str, *flags: str) -> str:
    """What a script prints that is run as a user runs it."""
    env = os.environ | COMPILING | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(BENCHMARKS / script), *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_drawing_and_answering(tmp_path, monkeypatch, settings):
    import device_draw
    import machine
    import make_checkpoint
    import sample

    monkeypatch.setattr(make_checkpoint, "POOL", 9973)
    monkeypatch.setattr(sample, "bandwidth", lambda: 1e9)  # of 2 GB
    model, shape, path = device_draw.model(toy=True), device_draw.TOY, str(tmp_path / "random")
    make_checkpoint.make(model, "transformers", path, pro=False, vocabulary=900)
    found = {"images": [1], "dtypes": {}}
    for dtype in ("float32", "int8"):
        one = sample.child(path, dtype, 1, [1], str(tmp_path / "logits.npz"), shape)
        one["memory"] = {
            side: sample.memory(side, path, dtype, shape) for side in ("ours", "theirs")
        }
        found["dtypes"][dtype] = one
    exact = found["dtypes"]["float32"]["agreement"]["ours"]
    assert exact["image"]["relative error"] < 1e-4 and exact["text"]["relative error"] < 1e-4
    near = found["dtypes"]["int8"]["agreement"]["ours"]["image"]["relative error"]
    assert 1e-4 < near < 0.5
    lines = sample.table(json.loads(json.dumps(found)) | {"images": []}, shape).splitlines()
    lines += sample.table(found, shape).splitlines()
    assert sum("peak memory GB" in line for line in lines) == 4
    assert any("image tokens/s, 1 image, dynamic cache" in line for line in lines)
    assert str(machine.cores()) in machine.name()


def test_passes_of_each_way_of_drawing(tmp_path):
    flags = "--shapes=toy", "--ways=masked,causal", f"--out={tmp_path}"
    told = typed("drawing_passes.py", *flags)
    found = {
        name: times
        for name, (times, _) in json.loads((tmp_path / "figures.json").read_text()).items()
    }
    a_pass, eight = found["a masked pass of 36 tokens"], found["a picture, masked, 8 passes"]
    assert eight["clock"] == pytest.approx(8 * a_pass["clock"]) and a_pass["clock"] > 0
    assert {"a picture, 36 steps", "a picture, masked, 32 passes"} < found.keys()
    assert (
        "a picture, 36 steps" in told and "of the processor" in (tmp_path / "table.md").read_text()
    )


class Here:
    """machine.Child in this process: no imports and no compiling twice."""

    def __init__(self, script, spec: dict):
        import machine

        module = importlib.import_module(pathlib.Path(script).stem)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(machine, "serve", self._serve)
            module.main(json.loads(json.dumps(spec)))
        self.process = types.SimpleNamespace(pid=os.getpid())

    def _serve(self, about: dict, answer):
        self.about, self._answer = json.loads(json.dumps(about)), answer

    def ask(self, word: str) -> dict:
        return json.loads(json.dumps(self._answer(word)))

    def stop(self):
        pass


def test_the_training_step(monkeypatch, settings):
    import machine
    import train_report
    import train_rows
    import train_step

    monkeypatch.setattr(machine, "Child", Here)
    monkeypatch.setattr(train_step, "FLAGS", types.SimpleNamespace(patience=0))
    changes = {"layers": 1, "width": 256, "mlp_width": 128, "vocabulary": 512}
    config = train_rows.changed(train_rows.cpu_config(), changes, None)
    llm, _ = train_step.specs(config, 2, 128, {"learning_rate": 3e-4, "weight_decay": 0.1})
    found = train_step.beside_the_peer(llm, ["varlen", "causal"], 2, True)
    assert found["peer"] == "varlen" and found["ratio"].keys() == {"least", "median", "peak"}
    assert found["losses apart"][0] < 1e-5
    text = train_report.report({
        "machine": machine.name(), "versions": {}, "command": "", "shape": "", "repeats": 2, "llm": found,
    })  # fmt: skip
    assert machine.name() in text and "varlen" in text


@pytest.mark.processes
def test_checkpoints(tmp_path):
    out = typed(
        "checkpoint.py", f"--dir={tmp_path}", "--gb=0.01", "--step=0", "--repeats=1", "--patience=0",
        f"--out={tmp_path / 'report'}",
    )  # fmt: skip
    rounds = json.loads((tmp_path / "report.json").read_text())["rounds"]
    assert rounds.keys() == {"ours", "orbax", "blocking"}
    assert all(x[0]["restore"] > 0 and x[0]["there"] >= x[0]["stall"] for x in rounds.values())
    assert "orbax over ours" in out and "orbax-checkpoint" in out


def test_packing():
    told = typed("packing.py", "--stages=stage3", "--rows=1408,4,4").splitlines()[-1]
    _, stage, rows, full, _, room, held, _, _ = map(str.strip, told.split("|"))
    assert (stage, rows, room) == ("stage3", "48 x 1408", "4 + 4")
    assert 70 < float(full.rstrip("%")) < 100
    assert 1 < sum(map(float, held.split(" + "))) <= 2  # of 576 tokens and more


@pytest.mark.processes
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it stops processes by /proc")
def test_data(tmp_path):
    out = tmp_path / "report"
    typed(
        "data.py", f"--corpus={tmp_path / 'corpus'}", "--pictures=6", "--records=4", "--repeats=1", "--workers=0",
        "--parts=formats", "--formats=folder", f"--out={out}",
    )  # fmt: skip
    sides = json.loads(out.with_suffix(".json").read_text())["formats"]["folder"]["sides"]
    assert {name for name, side in sides.items() if side["records/s"] > 0} == {
        "ours", "ours, exact", "theirs",
    }  # fmt: skip
    assert "torch" in out.with_suffix(".md").read_text()


@pytest.mark.processes
def test_evaluation(tmp_path):
    out = typed("evaluation.py", "--count=8", "--repeats=1", f"--out={tmp_path / 'report'}")
    found = json.loads((tmp_path / "report.json").read_text())
    for half in ("drawing", "answering"):
        assert found[half]["same"] == found[half]["of"] == 8 and found[half]["ratio"] > 0
    assert "| drawing |" in out and found["processor"] in out


@pytest.mark.processes
def test_the_server_under_load(tmp_path):
    out = tmp_path / "report"
    typed(
        "serve.py", "--toy", "--clients=2", "--each=1", "--least=4", "--rate=2", "--open=2", "--short=2",
        "--drawers=1", f"--out={out}",
    )  # fmt: skip
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["alike"]["one"]["sampled"] == {"draw": [2, 2], "answer": [2, 2]}
    for side in ("one", "transformers"):
        assert found["alike"][side]["likeliest"] == {"draw": [2, 2], "answer": [2, 2]}, side
    text = out.with_suffix(".md").read_text()
    assert "over transformers" in text and "2 clients" in text and "| 2 a second |" in text


@pytest.mark.processes
def test_a_servers_soak(tmp_path):
    out = tmp_path / "report"
    typed("serve.py", "--soak=0.2", "--soakers=4", f"--out={out}")
    found = json.loads(out.with_suffix(".json").read_text())
    assert found["wrong"] == [] and found["end"]["exit code"] == 0
    assert found["counts"]["bad"] and found["counts"]["canary"].keys() == {"the same"}
    assert sum(found["end"]["running"].values()) == sum(found["end"]["later"].values()) == 12
    assert out.with_suffix(".png").stat().st_size > 5000


@pytest.mark.processes
def test_grpo(tmp_path):
    only = "--guidance=5", "--temperature=1", "--dtypes=float32"
    out = typed("grpo.py", "--steps=2", "--count=16", *only, f"--out={tmp_path}")
    report = (tmp_path / "report.md").read_text()
    assert report in out
    rows = (line.split() for line in report.splitlines() if line)
    by_name = {name: cells for name, *cells in rows}
    assert all(float(by_name[part][0]) > 0 for part in ("rollout", "reward", "scoring", "update"))
    for kind in ("drawings", "answers"):
        mean, most = map(float, by_name[kind][2:])
        assert mean <= most < 1e-4
