"""Paths as people type them."""

import pytest

from janus_jax.common.paths import expanded, local, typed


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


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("file:///runs/a%20b", "/runs/a b"),
        ("FILE://localhost/runs/a", "/runs/a"),
        ("runs/a", "runs/a"),
        ("./gs:/a", "./gs:/a"),
        ("C:/runs", "C:/runs"),
        ("stage1:7", "stage1:7"),
    ],
)
def test_what_is_written_lies_on_this_machine(typed, meant):
    assert local(typed) == meant


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", "s3://bucket", "hf://a/b", "gs:/bucket", "https://a.b/c"]
)
def test_an_address_to_write_to_is_refused(path):
    with pytest.raises(ValueError, match=r"an address, .*; mount it and give its folder, or write"):
        local(path)
    with pytest.raises(ValueError, match="three slashes"):
        local("file://host/a")


@pytest.mark.parametrize(
    "path, said", [("", "is empty"), ("a" * 256, "too long"), ("a/" * 9999, "too long")]
)
def test_what_can_be_no_path_is_refused(path, said):
    with pytest.raises(ValueError, match=said):
        typed(path)
