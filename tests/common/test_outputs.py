"""Outputs: tried before the work, and nothing earlier is replaced."""

import os

import pytest

from janus_jax.common import outputs
from janus_jax.common.exit_codes import UsageError


def test_a_folder_that_can_be_made_is_tried_and_not_made(tmp_path):
    outputs.require_writable(tmp_path / "a" / "b", "--out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/below", "nul\0"])
def test_a_folder_that_cannot_be_written_is_refused_by_its_flag(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--out=.*; name a directory that this user can write"):
        outputs.require_writable(tmp_path / name, "--out")


def test_what_is_written_again_keeps_what_was_there(tmp_path):
    path = tmp_path / "new" / "plan.json"
    assert outputs.replace(path, "1") == ""
    assert outputs.replace(path, "1") == ""  # says the same
    assert outputs.replace(path, "2") == "the earlier plan.json is kept as plan.1.json"
    assert outputs.replace(path, b"3") == "the earlier plan.json is kept as plan.2.json"
    found = {p.name: p.read_text() for p in path.parent.iterdir()}
    assert found == {"plan.json": "3", "plan.1.json": "1", "plan.2.json": "2"}


def test_a_device_stays_a_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert outputs.replace(pipe, "told") == ""
    assert os.read(reader, 9) == b"told" and pipe.is_fifo()
    os.close(reader)
