"""Threads of all processes that wait for each other: a stand-in for JAX's key-value store."""

import jax
import pytest

from janus_jax.distributed import barrier, jax_client


class Store(dict):
    def key_value_set(self, key, value):
        self[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.items() if key.startswith(prefix)]


@pytest.fixture
def store(monkeypatch):
    """Of two processes, of which this is the first."""
    store = Store()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax_client, "client", lambda: store)
    return store


def test_all_that_come_go_on(store):
    store["janus/save/written/1"] = ""
    barrier.ThreadBarrier("save").wait("written", 0.1)
    assert store["janus/save/written/0"] == ""


def test_who_has_not_come_is_named(store):
    with pytest.raises(OSError, match=r"^process 1 has not come within 0 s$"):
        barrier.ThreadBarrier("save").wait("written", 0.1)


def test_who_has_failed_is_named_and_nobody_waits_for_it(store):
    barrier.ThreadBarrier("save").fail("no space left")
    with pytest.raises(OSError, match="process 0: no space left"):
        barrier.ThreadBarrier("save").wait("written", 3600)


def test_a_process_alone_waits_for_nobody():
    barrier.ThreadBarrier("save").wait("written", 0)
