"""Bodies that are refused: the field, the value, the remedy, all at once."""

import base64
import io
import math

import httpx
import pytest
from PIL import Image
from pydantic import ValidationError
from support.held_engine import HeldEngine
from support.servers import ask, serving, user

from janus_jax.serve.chat_form import ChatRequest
from janus_jax.serve.errors import unfit
from janus_jax.serve.forms import Limits
from janus_jax.serve.image_form import ImageRequest

CHAT, IMAGES = "chat/completions", "images/generations"
JSON = {"Content-Type": "application/json"}


def refused(reply: httpx.Response, status: int = 400) -> str:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["code"]
    return error["message"]


def drawing(**more) -> dict:
    return {"prompt": "a red circle"} | more


def pictures(*urls) -> dict:
    return user([{"type": "image_url", "image_url": {"url": url}} for url in urls])


def png(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_all_faults_of_a_body_are_told_at_once(door):
    body = user(3) | {"temperature": -1, "max_token": 3, "logprobs": True, "n": 99, "seed": 1.5}
    reply = ask(door, body)
    message = refused(reply)
    for words in (
        "messages[0].content: is 3: must be a string, or a list of parts",
        "temperature: is -1.0: must be a finite number in float32, 0 or more",
        "max_token: there is no such field; did you mean 'max_tokens'?",
        "logprobs: True cannot be followed: no probabilities are told; leave it out, or give False",
        "n: is 99: must be 1 to 8 (--max_n)",
        "seed is 1.5: input should be a valid integer",
    ):
        assert words in message
    assert reply.json()["error"]["param"] == "messages[0].content"
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 4000])
@pytest.mark.parametrize("field", ["guidance_scale", "temperature", "seed", "n"])
def test_numbers_that_are_none_are_refused_by_field(door, word, field):
    body = f'{{"prompt": "a red circle", "{field}": {word}}}'
    assert field in refused(ask(door, route=IMAGES, content=body, headers=JSON))


@pytest.mark.parametrize("form", [ChatRequest, ImageRequest])
@pytest.mark.parametrize(
    "value", [{}, [[]], "no", 10**30, -1, True, 1.5, math.nan, {"a": {"b": []}}]
)
def test_a_wrong_type_in_any_field_is_told_by_its_name_and_nothing_breaks(form, value):
    good = user("hi") if form is ChatRequest else drawing()
    taken = []
    for field in form.model_fields:
        try:
            form.model_validate(good | {field: value}, context=Limits(512, "24x24", 8, 8))
            taken.append(field)
        except ValidationError as error:
            refusal = unfit(error, form)
            assert refusal.status == 400 and field in str(refusal)
    assert len(taken) < len(form.model_fields) / 3


@pytest.fixture(scope="module")
def door():
    """No request that it takes is answered."""
    with serving(HeldEngine(waiting=10**6), request_timeout=0.01) as address:
        yield address


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tools": [{"type": "function"}]}, "this model calls no tools"),
        ({"response_format": {"type": "json_object"}}, "no JSON is enforced"),
        ({"frequency_penalty": 0.5}, "or give 0 or 0.0"),
        ({"max_tokens": 10**9}, "the context is 512 tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "give one of them"),
        ({"stream_options": {"include_usage": True}}, "set stream to true"),
        ({"draw": True, "top_p": 0.5}, "top_p: a drawing does not read it"),
        ({"guidance_scale": 2}, "guidance_scale: an answer in words does not read it"),
        ({"modalities": ["text", "audio"]}, "modalities[1] is 'audio'"),
        ({"stop": [""]}, "stop[0] is ''"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role is 'tool'"),
        ({"messages": [{"role": "user"}]}, "has the role 'user' and no content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "'input_audio'"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "has no 'text'"),
    ],
)
def test_what_a_chat_cannot_follow_is_refused_with_the_reason(door, more, words):
    assert words in refused(ask(door, user("hi") | more))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"size": "1024x1024"}, "this model draws 24x24"),
        ({"response_format": "url"}, "or give 'b64_json'"),
        ({"partial_images": 2}, "set stream to true"),
        ({"stream": True, "partial_images": 25}, "partial_images is 25"),
        ({"style": "vivid"}, "say it in the prompt"),
        ({"prompt": None}, "prompt is None"),
        ({"seed": -1}, "from 0 to 4294967295"),
        ({"model": "dall-e-3"}, "this server has 'quickstart'"),
    ],
)
def test_what_a_drawing_cannot_follow_is_refused_with_the_reason(door, more, words):
    status = 404 if "model" in more else 400
    assert words in refused(ask(door, drawing(**more), IMAGES), status)


@pytest.mark.parametrize(
    "same",
    [
        {"logprobs": False}, {"tools": []}, {"presence_penalty": 0}, {"response_format": {"type": "text"}},
        {"user": "me"}, {"n": 1}, {"stop": None}, {"model": "quickstart"}, {"max_tokens": 512},
    ],
)  # fmt: skip
def test_fields_that_ask_for_what_is_done_anyway_are_taken(door, same):
    assert ask(door, user("hi") | same).status_code == 504  # it ran, to the limit of this server


def test_what_open_webui_asks_of_an_image_engine_is_taken(door):
    body = {
        "model": "quickstart",
        "prompt": "a",
        "n": 1,
        "size": "24x24",
        "response_format": "b64_json",
    }
    assert ask(door, body, IMAGES).status_code == 504  # it ran, as above


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the body is no JSON"),
        (b'{"prompt": "a', "the body is no JSON"),
        (b'{"prompt": "\xff"}', "the body is no JSON in UTF-8"),
        (b'{"prompt": "\\ud800"}', "the body is no JSON"),
        (b"[" * 5000, "the body is no JSON"),
        (b"[" + b"1," * 60_000 + b"1]", "more than 50,000 commas"),
        (b"[]", "the body is []"),
        (b"{}", "prompt: is missing; give it"),
    ],
)
def test_what_is_no_form_is_refused(door, content, words):
    assert words in refused(ask(door, route=IMAGES, content=content, headers=JSON))


def test_a_body_of_another_type_is_refused_as_a_form_of_another_site_would_send_it(door):
    reply = ask(
        door, route=IMAGES, content=b'{"prompt": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert "send the header" not in refused(reply, 415) and "application/json" in reply.text


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused_whether_it_says_its_length_or_not(chunked):
    with serving(HeldEngine(), max_body=1000) as address:
        content = b" " * 1500
        content = iter([content[:700], content[700:]]) if chunked else content
        reply = ask(address, content=content, headers=JSON)
        assert "larger than 1.00 kB (--max_body_mb)" in refused(reply, 413)
        assert reply.headers["connection"] == "close"


def test_pictures_that_cannot_be_read_are_all_told():
    bad = (
        "/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/x", "data:image/png;base64,????",
        "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>", png(8000, 4000),
    )  # fmt: skip
    with serving(HeldEngine()) as address:
        lines = refused(ask(address, pictures(*bad))).splitlines()
    assert len(lines) == len(bad)
    told = (
        "no data URI",
        "no data URI",
        "--allow_urls",
        "no valid base64",
        "SVG",
        "32 million pixels",
    )
    for k, (line, words) in enumerate(zip(lines, told)):
        assert line.startswith(f"messages[0].content[{k}].image_url: ") and words in line


def test_more_pictures_than_the_server_takes_are_refused_before_one_is_read(door):
    assert "9 pictures, at most 8" in refused(ask(door, pictures(*["data:,x"] * 9)))
