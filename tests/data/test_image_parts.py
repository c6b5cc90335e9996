"""What people give for a picture of a chat: the picture, or one line that says what to give."""

import base64
import io
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from janus_jax.data.image_parts import open_picture
from janus_jax.data.image_pixels import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
FILE = io.BytesIO()
Image.fromarray(PIXELS).save(FILE, "PNG")
FILE = FILE.getvalue()
B64 = base64.b64encode(FILE).decode()


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A picture's file, in the working directory and at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a cat.png").write_bytes(FILE)
    return tmp_path / "a cat.png"


URIS = {
    "as written": f"data:image/png;base64,{B64}",
    "line breaks": f"data:image/png;base64,\n{B64[:76]}\r\n  {B64[76:]}\n",
    "white space before": f" \ndata:image/png;base64,{B64}",
    "upper case": f"DATA:IMAGE/PNG;BASE64,{B64}",
    "no padding": f"data:image/png;base64,{B64.rstrip('=')}",
    "the alphabet of URLs": f"data:;base64,{base64.urlsafe_b64encode(FILE).decode()}",
    "parameters": f"data:image/png;charset=utf-8;name=a.png; base64,{B64}",
    "percent-encoded base64": "data:image/png;base64," + B64.replace("+", "%2B").replace("=", "%3D"),
    "percent-encoded bytes": "data:image/png," + "".join(f"%{byte:02x}" for byte in FILE),
}  # fmt: skip


@pytest.mark.parametrize("name", URIS)
def test_data_uris_are_read_as_they_are_met(name):
    np.testing.assert_array_equal(np.asarray(open_picture(URIS[name], "message 0")), PIXELS)


class Stream(io.RawIOBase):
    """A file that cannot be sought, as of a network."""

    def __init__(self):
        self.rest = io.BytesIO(FILE)

    def readable(self):
        return True

    def readinto(self, into):
        return self.rest.readinto(into)


GIVEN = {
    "a key that is null": lambda path: {"type": "image", "image": None, "path": str(path)},
    "two keys that are null": lambda path: {"image": None, "path": None, "url": URIS["as written"]},
    "an image_url that is null": lambda path: {"image_url": None, "image": FILE},
    "a url that is null": lambda path: {"image_url": {"url": None, "path": path}},
    "the hub's struct": lambda path: {"type": "image", "image": {"bytes": FILE, "path": None}},
    "the hub's other struct": lambda path: {"image": {"bytes": None, "path": str(path)}},
    "base64 by its name": lambda path: {"type": "image", "base64": B64},
    "a file URI": lambda path: path.as_uri(),
    "a file URI in upper case": lambda path: "FILE://localhost" + str(path).replace(" ", "%20"),
    "home": lambda path: "~/a cat.png",
    "a variable": lambda path: "$HOME/a cat.png",
    "a bytearray": lambda path: bytearray(FILE),
    "a stream": lambda path: Stream(),
    "an open file": lambda path: io.BytesIO(FILE),
    "a path": lambda path: path,
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_picture_is_found_wherever_it_is_given(name, path):
    np.testing.assert_array_equal(np.asarray(open_picture(GIVEN[name](path), "message 0")), PIXELS)


def closed(path):
    with Image.open(path) as image:
        return image


def loop(path) -> str:
    os.symlink("loop", "loop")
    return "loop"


def link(path) -> str:
    os.symlink("gone.png", "link.png")
    return "link.png"


def pipe(path) -> str:
    os.mkfifo("pipe")
    return "pipe"


REFUSED = {
    "a closed image": (closed, ["a cat.png", "was closed before", "load()"]),
    "a closed image of a file in memory": (
        lambda path: closed(io.BytesIO(FILE)),
        ["PIL image 5x6", "was closed before", "load()"],
    ),
    "a closed file": (lambda path: closed_file(path), ["is closed"]),
    "a file open as text": (lambda path: io.StringIO("x"), ["open as text", "'rb'"]),
    "NUL": (lambda path: "a\0.png", ["a\\x00.png", "NUL"]),
    "a lone surrogate": (lambda path: "a\ud800.png", ["a\\ud800.png", "lone surrogate"]),
    "a name that is too long": (lambda path: "x." * 4500, ["9,000 characters", "too long"]),
    "a path that is too long": (lambda path: "x./" * 6000, ["18,000 characters", "too long"]),
    "base64 of a JPEG": (
        lambda path: "/9j/" + "A" * 99_999,
        ["put data:image/jpeg;base64, before"],
    ),
    "base64 of a PNG": (lambda path: B64, ["put data:image/png;base64, before"]),
    "base64 of any kind": (lambda path: "A" * 8_000_000, ["put data:image/png;base64, before"]),
    "base64 as bytes": (lambda path: B64.encode(), ["is base64 text, not the picture's bytes"]),
    "a long web address": (lambda path: "http://a/" + "b" * 5000, ["web address"]),
    "no name": (lambda path: "", ["''", "no such file"]),
    "a line break behind it": (lambda path: "a cat.png\n", ["a cat.png\\n", "white space"]),
    "a file below a file": (lambda path: "a cat.png/b", ["Not a directory"]),
    "links in a circle": (loop, ["symbolic links"]),
    "a broken link": (link, ["link to a file that is not there"]),
    "a FIFO": (pipe, ["not a regular file"]),
    "a device": (lambda path: "/dev/zero", ["not a regular file"]),
    "a folder": (lambda path: ".", ["is a directory"]),
    "a web address": (lambda path: "https://x.org/a.png", ["web address", "download"]),
    "a web address in upper case": (lambda path: "HTTP://X.ORG/A.PNG", ["web address"]),
    "a bucket": (lambda path: "s3://mine/a.png", ["web address", "download"]),
    "a file URI with two slashes": (lambda path: "file://a.png", ["three slashes"]),
    "a data URI cut at its comma": (lambda path: "data:image/png;base64", ["no comma"]),
    "a data URI that is no base64": (lambda path: f"data:;base64,%%{B64}", ["not valid base64"]),
    "a data URI of nothing": (lambda path: "data:image/png;base64,", ["data URI", "empty"]),
    "keys that are all null": (lambda path: {"image": None, "path": None}, ["holds no picture"]),
    "a part without a picture": (lambda path: {"x" * 9999: 1}, ["holds no picture"]),
    "a number": (lambda path: 3, ["not a int"]),
    "floats": (lambda path: np.zeros((4, 4, 3)), ["float64 (4, 4, 3)", "(x * 255)"]),
}


def closed_file(path):
    with open(path, "rb") as file:
        pass
    return file


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_answered_by_one_short_line(name, path):
    give, words = REFUSED[name]
    with pytest.raises(ImageError) as error:
        open_picture(give(path), "message 0")
    message = str(error.value)
    assert message.startswith("message 0: ") and "\n" not in message and len(message) < 500
    assert all(word in message for word in words), message


def test_a_missing_picture_shows_its_path(path):
    missing = pathlib.Path("no such folder") / "b.png"
    with pytest.raises(ImageError, match=r"message 1: no such folder/b\.png: no such file"):
        open_picture(missing, "message 1")
