"""Compiled programs in the user's cache folder: kept, bounded, and never in the user's way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from janus_jax.distributed import compile_cache

NAMES = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_enable_compilation_cache",
)


@pytest.fixture
def place(monkeypatch, tmp_path):
    """The cache folder of a user who has set nothing."""
    before = [(name, getattr(jax.config, name)) for name in NAMES]
    jax.config.update(NAMES[0], None)
    compilation_cache.reset_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "janus_jax" / "compiled"
    for name, value in before:
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compiled(number: int) -> int:
    """Compiles a program anew; how many came from the cache."""
    hits = []
    listen = lambda name, **_: hits.append(name) if name.endswith("/cache_hits") else None
    jax.monitoring.register_event_listener(listen)
    try:
        assert np.asarray(jax.jit(lambda x: jnp.sin(x) + number)(np.zeros(3)))[0] == number
    finally:
        jax.monitoring.unregister_event_listener(listen)
    return len(hits)


def test_a_program_is_compiled_once_and_the_oldest_leave(monkeypatch, place):
    compile_cache.keep()
    assert compiled(1) == 0
    assert compiled(1) == 1
    (first,) = place.glob("*-cache")
    monkeypatch.setattr(compile_cache, "SIZE", first.stat().st_size * 3 // 2)
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_compilation_cache_max_size", -1)
    compile_cache.keep()
    assert compiled(2) == 0
    (left,) = place.glob("*-cache")
    assert left != first


def test_what_a_killed_process_wrote_in_part_is_dropped(place):
    place.mkdir(parents=True)
    for name in ("whole-cache", "whole-atime", "half-cache"):
        (place / name).touch()
    compile_cache.keep()
    assert {path.name for path in place.glob("*-*")} == {"whole-cache", "whole-atime"}


@pytest.mark.parametrize(
    "name, value, after",
    [(NAMES[0], "/mine", "/mine"), (NAMES[0], "", None), (NAMES[2], False, None)],
)
def test_what_the_user_has_set_stays(place, name, value, after):
    jax.config.update(name, value)
    compile_cache.keep()
    assert jax.config.jax_compilation_cache_dir == after and not place.exists()


def test_runs_of_several_processes_and_a_jax_that_refuses_its_own_programs_keep_none(
    monkeypatch, place
):
    for name, value in (("process_count", lambda: 2), ("__version_info__", (0, 10, 1))):
        with monkeypatch.context() as patch:
            patch.setattr(jax, name, value)
            compile_cache.keep()
        assert jax.config.jax_compilation_cache_dir is None and not place.exists()


def test_a_folder_that_cannot_be_written_is_said_once_and_no_failure(monkeypatch, place, capsys):
    place.parent.touch()
    compile_cache.keep()
    told = capsys.readouterr().err
    assert told.startswith("WARNING: compiled programs are not kept: ") and told.count("\n") == 1
    assert str(place) in told and jax.config.jax_compilation_cache_dir is None


@pytest.mark.parametrize("given", ["", "relative"])
def test_without_an_absolute_xdg_cache_home_it_lies_in_the_home(monkeypatch, tmp_path, given):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_cache.folder() == tmp_path / ".cache" / "janus_jax" / "compiled"
