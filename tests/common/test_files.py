"""Small files, all or nothing."""

import ast
import errno
import os
import re

import pytest
from support import paths

from janus_jax.common import files


def test_a_file_is_written_as_text_bytes_or_by_a_function(tmp_path):
    path = tmp_path / "a"
    for content in ("é", "é".encode(), lambda file: file.write("é".encode())):
        files.write(path, content)
        assert path.read_bytes() == "é".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fails", ["content", "sync", "replace"])
def test_where_writing_fails_the_old_file_stays_and_nothing_beside_it(tmp_path, monkeypatch, fails):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path, content = tmp_path / "a", b"new"
    path.write_text("old")
    if fails == "content":
        content = fail
    else:
        monkeypatch.setattr(os, {"sync": "fsync", "replace": "replace"}[fails], fail)
    with pytest.raises(OSError, match=r"No space left.*/a'"):
        files.write(path, content)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text, said",
    [
        ("[1]", "holds a list, expected a JSON object"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON .*recursion"),
    ],
    ids=["list", "cut", "deep"],
)
def test_what_is_no_json_object_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json: {said}"):
        files.read_json(path)


def test_a_json_file_that_is_not_there_is_told_from_one_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(ValueError, match=r"a\.json: cannot be read as JSON"):
        files.read_json(tmp_path / "a.json")


TEXT = {"open", "fdopen", "read_text", "write_text", "run", "Popen", "check_output"}


def unsaid(path) -> list[str]:
    """The calls in a module that read or write text in whatever encoding the machine has."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        named = {word.arg: ast.unparse(word.value) for word in node.keywords}
        words = [ast.unparse(word) for word in node.args]
        if name not in TEXT or called.startswith(("os.open", "Image.", "self.", "tensorstore.")):
            continue
        if name in ("read_text", "write_text"):
            bad = len(words) == (name == "write_text") and "encoding" not in named
        elif name in ("open", "fdopen"):
            given = words[1:2] or ["'r'"] if called in ("open", "os.fdopen") else words[:1]
            mode = named.get("mode", *given or [""])
            bad = "encoding" not in named and re.fullmatch("'[rwax+t]+'", mode)
        else:
            bad = named.get("text") == "True" and "encoding" not in named
        found += [f"{path}:{node.lineno}: {called}"] if bad else []
    return found


def test_no_file_is_read_or_written_in_the_encoding_of_the_machine():
    package = list((paths.ROOT / "janus_jax").rglob("*.py"))
    assert len(package) > 100 and [line for path in package for line in unsaid(path)] == []
