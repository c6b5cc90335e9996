"""Processes that wait for each other by files."""

import threading

import jax
import pytest

from janus_jax.distributed import shares
from janus_jax.distributed.processes import HostsError


def test_a_process_waits_for_the_others_files(tmp_path):
    (tmp_path / "a").touch()
    timer = threading.Timer(0.2, (tmp_path / "b").touch)
    timer.start()
    shares.wait(tmp_path, ["a", "b"])
    assert (tmp_path / "b").is_file()
    timer.join()


def test_the_word_of_one_that_ends_reaches_those_that_wait(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError), shares.word_left(tmp_path):
        raise RuntimeError("alone")
    assert not list(tmp_path.iterdir())  # nobody waits
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 2)
    with pytest.raises(RuntimeError), shares.word_left(tmp_path):
        raise RuntimeError("out of luck")
    with pytest.raises(HostsError, match="not all are:\nprocess 2: RuntimeError: out of luck"):
        shares.wait(tmp_path, ["a"])
    shares.forget(tmp_path)
    assert not list(tmp_path.iterdir())
