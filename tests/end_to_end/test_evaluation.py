"""Evaluation as real processes: killed at any moment, and shared by two."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
from support.processes import COMPILING

pytestmark = [pytest.mark.processes, pytest.mark.slow]

FLAGS = (
    "--benchmark=shapes", "--half=generation", "--data=shapes:20", "--model=quickstart",
)  # fmt: skip


def start(out, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "janus_jax.eval", *FLAGS, f"--out={out}", *flags]
    env = os.environ | COMPILING | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen):
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told.decode()[-4000:]


def tree(out) -> dict[str, bytes]:
    folder = out / "pictures"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    finish(start(out))
    found = tree(out)
    assert sum(name.endswith(".png") for name in found) == 120
    return found


def test_a_killed_evaluation_goes_on_to_the_same_tree(whole, tmp_path):
    out = tmp_path / "cut"
    until = random.randint(1, 100)  # pictures
    process = start(out)
    while process.poll() is None and len(list((out / "pictures").rglob("*.png"))) < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = {name: content for name, content in tree(out).items() if name.endswith(".png")}
    assert until <= len(left) < 120, f"killed after {until}"
    finish(start(out))
    assert tree(out) == whole, f"killed after {until}"


def test_two_processes_draw_the_tree_of_one(whole, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = (f"--coordinator=127.0.0.1:{port}", "--processes=2")
    both = [start(tmp_path / "two", *flags, f"--process={i}") for i in range(2)]
    for process in both:
        finish(process)
    assert tree(tmp_path / "two") == whole
