"""A few hundred pieces of photographs in each format: one config line, and twenty steps of training."""

import json

import jax
import pytest
import test_formats as formats
from conftest import on_mesh

from janus_jax import main

PICTURES, STEPS = 240, 20
CONFIG = """
import dataclasses
import tiny
from ml_collections import ConfigDict
from janus_jax import optim

def get_config():
    return ConfigDict({{
        "model": dataclasses.asdict(tiny.small(remat="none")),
        "template": {{"user": "User", "assistant": "Assistant", "system": ""}},
        "data": {{"datasets": {{
            "mine": {line!r},
        }}}},
        "stages": {{"only": {{
            "trainable": tiny.ALL, "init": (), "steps": {steps}, "batch_size": 16,
            "rows": {{"count": 8, "length": 96, "pictures": 2, "images": 2}},
            "ratio": {{"understanding": 0, "text": 0, "generation": 0}} | {{{line[kind]!r}: 1}},
            "supervise": "all",
            "optim": dataclasses.asdict(optim.Optim(learning_rate=1e-2)),
            "log_every": 1,
        }}}},
    }})
"""


def classes(root, n):
    for k in range(n):
        folder = root / "train" / formats.NAMES[k % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{k}.jpg").write_bytes(formats.photo(k))
    return root / "train"


def documents(root, n):
    (root / "all.txt").write_text("\n\n".join(f"This is {formats.caption(k)}." for k in range(n)))
    return root / "all.txt"


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """All runs take the same step: it is compiled once, and cheaply."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_disable_most_optimizations": True,
    }
    before = {name: getattr(jax.config, name, False) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def slowly(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "write, kind",
    [
        (formats.json_lines, "understanding"), slowly(classes, "generation"), (formats.tars, "generation"),
        slowly(formats.array_record, "understanding"), slowly(formats.parquet, "generation"),
        slowly(formats.saved_by_datasets, "understanding"), slowly(formats.tfds, "generation"), (documents, "text"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)  # fmt: skip
def test_one_config_line_trains(write, kind, tmp_path):
    (tmp_path / "data").mkdir()
    line = {"kind": kind, "path": str(write(tmp_path / "data", PICTURES))}
    (tmp_path / "config.py").write_text(CONFIG.format(line=line, steps=STEPS))
    with on_mesh(1, 8, 1):
        main.run(str(tmp_path / "config.py"), {}, str(tmp_path / "run"))
    log = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == list(range(1, STEPS + 1))
    name = f"{kind}_loss"
    assert log[-1][name] < 0.9 * log[0][name], (log[0], log[-1])
    assert all(record[f"examples_{kind}"] == 1 and record["bad_records"] == 0 for record in log)
    assert not (tmp_path / "run" / "rotten.jsonl").exists()
