"""The commands of docs/serving.md do what it says, on the small model."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from PIL import Image
from support.paths import ROOT

from janus_jax.common import cli
from janus_jax.serve.__main__ import COMMAND, settings_of

PAGE = (ROOT / "docs" / "serving.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, re.M | re.S)
HERE = "http://127.0.0.1:8000"
# The harnesses' own are run by test_harnesses.py, where they are installed.
CLIENTS = [
    (kind, text) for kind, text in BLOCKS if HERE in text and ("curl" in text or "import" in text)
]
STARTS = [
    line
    for _, text in BLOCKS
    for line in text.replace("\\\n", "").splitlines()
    if line.startswith("janus-jax serve")
]


@pytest.mark.processes
def test_the_commands_of_clients_run(server, tmp_path):
    assert len(CLIENTS) >= 3
    for kind, text in CLIENTS:
        program = ["bash", "-euo", "pipefail", "-c"] if kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, text.replace(HERE, server)], cwd=tmp_path, check=False,
            capture_output=True, text=True, timeout=300,
            env=os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        assert done.stdout and '"error"' not in done.stdout, f"{text}\n{done.stdout}"
        if "circle.png" in text:
            with Image.open(tmp_path / "circle.png") as picture:
                assert picture.size == (24, 24) and picture.info["prompt"] == "a red circle"
            os.remove(tmp_path / "circle.png")


def test_the_commands_that_start_a_server_have_flags_that_it_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "api_keys").write_text("key\n")
    assert len(STARTS) >= 2
    for line in STARTS:
        _, _, *flags = shlex.split(line)
        assert settings_of(cli.parse(COMMAND, flags)[0]).model


def test_flags_stand_on_the_page_with_their_defaults():
    flags, _ = cli.parse(COMMAND, ["--model=quickstart"])
    for name, default in re.findall(r"^\| `--(\w+)` \| (\d+)\b", PAGE, re.M):
        assert float(default) == flags[name].default
    untold = [name for name in flags if f"--{name}" not in PAGE and name not in UNTOLD]
    assert not untold


UNTOLD = ("dtype", "allow_pickle", "port", "name")  # --help says enough


def test_metrics_of_the_page_are_told(server):
    from support.servers import get

    told = get(server, "/metrics").text
    row = re.search(r"^\| metric.*?\n\n", PAGE, re.M | re.S)[0]
    for name in re.findall(r"`janus_jax(_\w+)", row) + re.findall(r"`(_\w+)`", row):
        assert f"\n# HELP janus_jax{name} " in f"\n{told}", name
