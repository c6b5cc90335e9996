"""A few hundred pieces of photographs in each format: one config line, and twenty steps of
training."""

import json

import pytest
from support import formats, traced
from support.mesh import on_mesh

from janus_jax import main
from janus_jax.training import curves
from janus_jax.training.tasks import janus

PICTURES, STEPS = 240, 20
CONFIG = """
import dataclasses
from support import tiny
from ml_collections import ConfigDict
from janus_jax.config.schema import Optim

def get_config():
    return ConfigDict({{
        "model": dataclasses.asdict(tiny.small(remat="none")),
        "template": {{"user": "User", "assistant": "Assistant", "system": ""}},
        "data": {{"datasets": {{
            "mine": {line!r},
        }}}},
        "stages": {{"only": {{
            "trainable": tiny.ALL, "init": (), "steps": {steps}, "batch_size": 16,
            "rows": {{"count": 8, "length": 96, "understanding_images": 2, "generation_images": 2}},
            "ratio": {{"understanding": 0, "text": 0, "generation": 0}} | {{{line[kind]!r}: 1}},
            "supervise": "all",
            "optim": dataclasses.asdict(Optim(learning_rate=1e-2)),
            "log_every": 1,
        }}}},
    }})
"""


@pytest.fixture(autouse=True, scope="module")
def quick():
    """One step for all, and no curves, which take longer."""
    with pytest.MonkeyPatch.context() as patch, traced.once(janus):
        patch.setattr(curves, "plot", lambda *_: None)
        yield


def classes(root, n):
    for k in range(n):
        folder = root / "train" / formats.NAMES[k % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k}.jpg").write_bytes(formats.photo(k))
    return root / "train"


def documents(root, n):
    (root / "all.txt").write_text("\n\n".join(f"This is {formats.caption(k)}." for k in range(n)))
    return root / "all.txt"


@pytest.mark.slow
@pytest.mark.parametrize(
    "write, kind",
    [
        (formats.json_lines, "understanding"),
        (formats.two_paths, "generation"),
        (classes, "generation"),
        (formats.tars, "generation"),
        (formats.array_record, "understanding"),
        (formats.parquet, "generation"),
        (formats.saved_by_datasets, "understanding"),
        (formats.tfds, "generation"),
        (documents, "text"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_one_config_line_trains(write, kind, tmp_path):
    (tmp_path / "data").mkdir()
    line = {"kind": kind, "path": str(write(tmp_path / "data", PICTURES))}
    (tmp_path / "config.py").write_text(CONFIG.format(line=line, steps=STEPS))
    with on_mesh(1, 8, 1):
        main.run(str(tmp_path / "config.py"), {}, str(tmp_path / "run"))
    log = [
        json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["step"] for record in log] == list(range(1, STEPS + 1))
    name = f"{kind}_loss"
    assert log[-1][name] < 0.9 * log[0][name], (log[0], log[-1])
    assert all(record[f"examples_{kind}"] == 1 and record["bad_records"] == 0 for record in log)
    assert not (tmp_path / "run" / "bad_records.jsonl").exists()
