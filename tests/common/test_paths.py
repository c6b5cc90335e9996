"""Paths as people type them."""

import pytest

from janus_jax.common.paths import expanded


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("~/a", "/home/ada/a"),
        ("~", "/home/ada"),
        ("$DATA/a", "/data/a"),
        ("${DATA}/{00..07}.tar", "/data/{00..07}.tar"),
        ("~/stage2.py:h100:64", "/home/ada/stage2.py:h100:64"),
        ("tfds:mnist@train?~/tfds", "tfds:mnist@train?/home/ada/tfds"),
        ("a~b/c$", "a~b/c$"),
        ("owner/name", "owner/name"),
        ("shapes:", "shapes:"),
        ("", ""),
    ],
)
def test_a_path_is_expanded_as_a_shell_would(home, typed, meant):
    assert expanded(typed) == meant


@pytest.mark.parametrize("name", ["~", "$DATA", "$NO_SUCH"])
def test_a_file_that_is_really_called_so_is_itself(home, name):
    (home / name).touch()
    assert expanded(name) == name
