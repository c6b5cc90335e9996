"""What processes compare with each other."""

import pytest

from janus_jax.distributed import processes


def others(monkeypatch, *values):
    """Makes all_gather give this process's value and those of others."""
    monkeypatch.setattr(processes, "all_gather", lambda mine: [mine, *values])


def test_processes_that_run_the_same_are_told_nothing(monkeypatch):
    others(monkeypatch, {"host": "b", "facts": {"seed": "0"}})
    processes.require_equal({"seed": "0"})


def test_what_differs_is_named_with_the_processes(monkeypatch):
    others(monkeypatch, {"host": "b", "facts": {"seed": "1"}})
    with pytest.raises(processes.HostsError) as caught:
        processes.require_equal({"seed": "0", "package": "3"})
    told = str(caught.value)
    assert "seed: 0 on process 0 (" in told and "1 on process 1 (b)" in told
    assert "package: 3 on process 0 (" in told and "nothing on process 1 (b)" in told


def test_an_error_of_ones_own_comes_before_that_of_another(monkeypatch):
    others(monkeypatch, ["ConfigError: theirs", 2])
    with pytest.raises(KeyError, match="ours"):
        processes.all_or_none(lambda: {}["ours"])
    with pytest.raises(processes.Others, match="process 1: ConfigError: theirs"):
        processes.all_or_none(lambda: None)
