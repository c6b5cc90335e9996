"""Before the first step: every shipped config passes, every broken one is told with all its faults;
nothing is left."""

import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import types

import pytest
import torch
from support import perceptual, tiny
from support.configs import shipped
from support.paths import ROOT
from support.rehearsal import QUICKSTART, refusal, rehearsed

from janus_jax.common import exit_codes
from janus_jax.common.files import WEIGHTS_FILE
from janus_jax.config import read, schema
from janus_jax.model import config as model_config
from janus_jax.training import (
    preflight,
    preflight_data,
    preflight_disk,
    preflight_processor,
    preflight_weights,
    run_dir,
)
from janus_jax.weights import reader

pytestmark = pytest.mark.usefixtures("traced_once", "weights")

SHIPPED = [
    *(path.rsplit("/", 1)[1] for path in shipped()),
    *(f"pro_stage{n}.py:7b" for n in (1, 2, 3)),
    "stage2.py:v5p:4x4x8",
    "pro_stage3.py:7b:h100:64",
]
DEVICES = {"stage2.py:v5p:4x4x8": 128, "pro_stage3.py:7b:h100:64": 64}


@pytest.fixture
def large_disk(monkeypatch):
    """What 7B models write fits on it."""
    monkeypatch.setattr(
        preflight_disk.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=int(1e13))
    )


def hollow(path: pathlib.Path, shapes: dict):
    """A weights file of the right header and size that takes no room on the disk."""
    header, at = {}, 0
    for name, x in shapes.items():
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [at, at + 4 * x.size]}
        at += 4 * x.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


# What is sound


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_passes_where_its_files_are(name, tmp_path, capsys, large_disk):
    """Its data replaced by drawn shapes, its weights by hollow files of the right shapes."""
    config = str(ROOT / "configs" / name)
    e, _ = read.read(config)
    overrides, devices = {}, DEVICES.get(name, 8)
    for key, line in e.data.datasets.items():
        if not line.path.startswith(("shapes:", "emoji:", "scenes:", "solids:")):
            pairs = any(stage.task.startswith("dpo") for stage in e.stages.values())
            new = dict(
                path="shapes:pairs" if pairs else "shapes:",
                images="",
                names="",
                format="",
                min_side="0",
                score="",
                image_ids="",
                min_score="0.0",
            )
            overrides |= {f"data.datasets.{key}.{field}": value for field, value in new.items()}
    if e.tokenizer:
        overrides["tokenizer"] = str(tmp_path)
        tiny.processor().tokenizer.save(tmp_path)
    for stage, column in e.stages.items():
        if column.init and column.init != ("previous",):
            _, params = preflight_weights.shapes(e, devices)
            hollow(tmp_path / stage / WEIGHTS_FILE, reader.flatten(params))
            if name.startswith(
                ("finetune", "dpo")
            ):  # sizes, template and tokenizer are of these weights
                sizes = json.dumps(model_config.to_dict(e.model))
                (tmp_path / stage / "config.json").write_text(sizes)
                tokenizer = tiny.processor().tokenizer
                preflight_processor.run_processor(e, tokenizer).save(tmp_path / stage)
            overrides[f"stages.{stage}.init"] = str(tmp_path / stage)
        if column.options.get("lpips"):
            torch.save(perceptual.vgg() | perceptual.heads(), tmp_path / "vgg.pth")
            overrides[f"stages.{stage}.options.lpips"] = str(tmp_path / "vgg.pth")
    out = rehearsed(capsys, config, tmp_path / "run", overrides, devices)
    warnings = [line for line in out.splitlines() if "WARNING" in line]
    if name == "points.py":  # whose records show no picture
        (line,) = (line for line in warnings if "understanding_encoder is frozen" in line)
        warnings.remove(line)
    assert "the run can begin" in out and all("batch_size is" in line for line in warnings)
    # Sentences about shapes and scenes are short, or long; how many fit a row is measured.
    assert not warnings or e.tokenizer or name.startswith("miniature")
    for words in (
        f"mesh {'x'.join(map(str, mesh(e, devices)))}",
        "parameters",
        "tokenizer",
        "checkpoints of",
    ):
        assert words in out
    assert all(f"{key}: {line.kind}, " in out for key, line in preflight_data.needed(e).items())
    assert all(f"\n{stage} " in out for stage in e.stages)


def mesh(e, devices):
    return preflight.sh.mesh_shape(e.mesh.data, e.mesh.fsdp, e.mesh.tensor, devices)


def test_a_shipped_config_without_its_files_names_every_path(tmp_path):
    told = refusal(schema.ConfigError, str(ROOT / "configs" / "stage2.py"), tmp_path / "run")
    for words in (
        "tokenizer: no tokenizer.json in runs/stage1/stage1",
        "stages.stage2.init: runs/stage1/stage1",
        "data.datasets.imagenet: data/imagenet/train",
        "data.datasets.text: data/text/*.parquet",
    ):
        assert words in told
    assert not (tmp_path / "run").exists()


def test_weights_of_lpips_of_another_layout_are_told_before_a_run_begins(tmp_path):
    """Both of a config's stages name them."""
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    overrides = {
        f"stages.{name}.options.lpips": str(tmp_path / "other.pth")
        for name in ("imagenet", "text_to_image")
    }
    told = refusal(
        schema.ConfigError, str(ROOT / "configs" / "vq16.py"), tmp_path / "run", overrides
    )
    assert "stages.imagenet.options.lpips: " in told and "lacks features.0.weight" in told
    assert "stages.text_to_image.options.lpips: " in told
    assert not (tmp_path / "run").exists()


# What is not

BROKEN = [  # overrides of the quick start on 8 devices; the error, and what it says
    ({"sed": "1", "stages.stage2.optim.learning_rate": "-1"}, 2, ["did you mean 'seed'", "learning_rate is -1.0"]),
    ({"stages.stage1.optim.warmup_steps": "61", "stages.stage2.steps": "0"}, 2, ["longer than the 60", "is 0"]),
    ({"stages.stage2.accumulate": "0", "stages.stage1.checkpoint_every": "0"}, 2, ["accumulate is 0", "every is 0"]),
    ({"mesh.data": "3", "mesh.fsdp": "2"}, 2, ["3x2x1=6 of 8 devices"]),
    ({"mesh.tensor": "8"}, 2, ["model.transformer.heads is 4", "mesh.tensor = 4"]),
    ({"stages.stage2.rows.count": "12"}, 2, ["8 must divide it; nearest: 8 or 16"]),
    ({"model.transformer.vocabulary": "256"}, 2, ["vocabulary is 256: the tokenizer has "]),
    ({"stages.stage1.optim.learning_rate.transformer": "1e-5"}, 2,
     ["learning_rate.transformer: the stage trains no transformer", "known: default, generation_adaptor"]),
    ({"checkpoints.keep": "1"}, 2, ["checkpoints.keep is 1"]),
    ({"tokenizer": "no/such"}, 2, ["tokenizer: no tokenizer.json in no/such"]),
    ({"stages.stage1.init": "./no/such"}, 2, ["stages.stage1.init: no/such: no weights directory"]),
    ({"data.datasets.scenes.path": "gone/*.tar", "data.datasets.questions.path": "gone.json"}, 3,
     ["data.datasets.scenes: gone/*.tar", "data.datasets.questions: gone.json"]),
    ({"data.datasets.scenes.path": "gone", "seed": "-1"}, 2, ["seed is -1", "data.datasets.scenes: gone"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "overrides, code, words", BROKEN, ids=[", ".join(case[0]) for case in BROKEN]
)
def test_what_a_config_says_wrong_is_told_at_once(overrides, code, words, tmp_path):
    with pytest.raises(ValueError) as error:
        preflight.prepare(QUICKSTART, overrides, tmp_path / "run")
    told = refusal(ValueError, QUICKSTART, tmp_path / "run", overrides)
    assert str(error.value) == told and exit_codes.of_error(error.value) == code
    assert [word for word in words if word not in told] == []
    assert not (tmp_path / "run").exists()


def test_a_dry_run_tells_each_part_when_it_is_done(tmp_path, capsys, monkeypatch):
    told, plain = [], preflight_weights.look_at_weights

    def look(*args):
        told.append(capsys.readouterr().out)
        return plain(*args)

    monkeypatch.setattr(preflight_weights, "look_at_weights", look)
    preflight.rehearse(QUICKSTART, {}, tmp_path / "run")
    rest = capsys.readouterr().out
    assert re.search(r"\(data sets opened: \d+\.\d s\)", told[0]) and "mesh 1x8x1" in told[0]
    assert "tokenizer" not in told[0] and "(tokenizer: " in rest and "(first records: " in rest


@pytest.mark.parametrize("trained", [False, True])
def test_a_learned_tokenizer_that_was_cut_is_learned_again_while_nothing_needs_it(
    trained, tmp_path
):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    plain = read.read(QUICKSTART)[0]
    run_dir.same_run(plain, tmp_path)
    (tmp_path / "checkpoints" / "stage1" / ("7" if trained else ".saving-7")).mkdir(parents=True)
    sources, _ = preflight_data.open_sources(plain, [])
    found, again = (preflight.Found(plain, print, sources=sources) for _ in range(2))
    (found.processor, found.learned), report = preflight.look_at_tokenizer(found, tmp_path, {}, {})
    assert bool(report.config) == trained and bool(report.warnings) != trained
    if trained:
        assert "copy the file again" in report.config[0]
        return
    assert "it is learned again" in report.warnings[0]
    preflight.first_files(found, tmp_path)
    (again.processor, again.learned), report = preflight.look_at_tokenizer(again, tmp_path, {}, {})
    assert not again.learned and report.warnings == []
    assert again.processor.tokenizer.fingerprint == found.processor.tokenizer.fingerprint
    assert not list(tmp_path.glob("*.partial"))


# As a command


def command(workdir, *flags, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "janus_jax.main", f"--config={QUICKSTART}", f"--workdir={workdir}", *flags],
        cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | variables,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.processes
def test_the_command_tells_and_ends_with_0_and_writes_nothing(tmp_path):
    done = command(tmp_path / "run", "--dry_run", "--devices=8")
    assert done.returncode == 0, done.stderr
    assert (
        "8 by --devices, here are 1 x cpu" in done.stdout
        and "the run can begin on 8 devices" in done.stdout
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_the_command_ends_with_the_code_of_the_fault(tmp_path):
    done = command(tmp_path / "run", "--dry_run", "--config.data.datasets.scenes.path=gone.json")
    assert done.returncode == 3 and "SourceError: data.datasets.scenes: gone.json" in done.stderr
    assert "Traceback" not in done.stderr and "the run can begin" not in done.stdout
    assert list(tmp_path.iterdir()) == []
    done = command(tmp_path / "run", "--devices=8")
    assert done.returncode == 2 and "--devices is of --dry_run" in done.stderr
