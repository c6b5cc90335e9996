"""Drawings of several sizes, as clients ask for them."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image
from support import tiny
from support.mesh import on_mesh
from support.sampling import make
from support.servers import ask, get, serving, user

import janus_jax
from janus_jax.serve.engine import Engine

VQ = dataclasses.replace(tiny.CONFIG.generation_encoder, sizes=("24x16", "16x24"))
IMAGES, CHAT = "images/generations", "chat/completions"
WORDS = "a red circle"
HOW = {"seed": 3, "guidance_scale": 2.0, "temperature": 1.0}


@pytest.fixture(scope="module")
def model():
    with on_mesh():
        yield make(tiny.small(generation_encoder=VQ))


@pytest.fixture(scope="module")
def server(model):
    engine = Engine(model, tiny.processor(), rows=4)
    with serving(engine) as address:
        yield address
    engine.close()


def library(model, **how):
    (picture,) = janus_jax.generate(
        model, tiny.processor(), WORDS, seed=3, cfg_scale=2.0, temperature=1.0, **how
    )
    return np.asarray(picture)


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize("size, told", [("24x16", "24x16"), ("auto", "16x16"), ("16x16", "16x16")])
def test_a_picture_of_a_size_is_that_of_the_library_and_says_it(server, model, size, told):
    reply = ask(server, {"prompt": WORDS, "size": size, **HOW}, IMAGES).json()
    file = opened(reply["data"][0]["b64_json"])
    of = {"size": size} if size == "24x16" else {}
    np.testing.assert_array_equal(np.asarray(file), library(model, **of))
    assert reply["size"] == told and file.info.get("size") == of.get("size")
    width, height = map(int, told.split("x"))
    assert reply["usage"]["output_tokens"] == width * height // 16


def test_unfinished_pictures_are_whole_rows_of_their_size(server):
    body = {"prompt": WORDS, "size": "16x24", "stream": True, "partial_images": 5, **HOW}
    lines = ask(server, body, IMAGES).text.split("\n")
    events = [
        json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")
    ]
    assert {event["total"] for event in events} == {24}
    assert {event["size"] for event in events} == {"16x24"}
    for event in events:
        height = opened(event["b64_json"]).height
        assert height == event["done"] // 4 * 4 and event["done"] % 4 == 0
    assert events[-1]["done"] == 24 and len(events) > 1


def test_a_chat_draws_in_a_size_too(server, model):
    reply = ask(server, user(WORDS) | {"draw": True, "size": "24x16", **HOW}, CHAT).json()
    (part,) = reply["choices"][0]["message"]["content"]
    file = opened(part["image_url"]["url"].partition(",")[2])
    np.testing.assert_array_equal(np.asarray(file), library(model, size="24x16"))


def test_the_model_tells_its_sizes(server):
    (told,) = get(server, "/v1/models").json()["data"]
    assert told["sizes"] == ["16x16", "24x16", "16x24"] and told["image_size"] == 16


@pytest.mark.parametrize(
    "route, body, told",
    [
        (IMAGES, {"prompt": WORDS, "size": "24x24"}, "'24x24': this model draws 16x16, 24x16, 16x24; give one"),
        (CHAT, user(WORDS) | {"draw": True, "size": "9x9"}, "'9x9': this model draws 16x16, 24x16, 16x24"),
        (CHAT, user(WORDS) | {"size": "24x16"}, "size: an answer in words does not read it"),
    ],
)  # fmt: skip
def test_what_it_does_not_draw_is_refused(server, route, body, told):
    reply = ask(server, body, route)
    assert reply.status_code == 400 and told in reply.json()["error"]["message"]


def test_edits_are_squares(server):
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "PNG")
    files = [("image", out.getvalue())]
    reply = ask(server, None, "images/edits", files=files, data={"prompt": WORDS, "size": "24x16"})
    message = reply.json()["error"]["message"]
    assert reply.status_code == 400
    assert "'24x16': this model draws 16x16 of pictures that it edits" in message


def test_a_model_of_one_size_tells_no_others_and_refuses_them(door):
    (told,) = get(door, "/v1/models").json()["data"]
    assert "sizes" not in told
    reply = ask(door, {"prompt": WORDS, "size": "24x16"}, IMAGES)
    assert (
        "'24x16': this model draws 24x24; give it, or leave it out"
        in reply.json()["error"]["message"]
    )
